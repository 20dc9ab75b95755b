#include "base/processes.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <sstream>
#include <string_view>
#include <system_error>

#include "base/text.h"

namespace tptrain {

namespace {

namespace fs = std::filesystem;

// Files of /proc have no size: read to the end, as far as anything is looked for in them.
std::string head_of(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return {};
  std::string text(size_t{1} << 17, '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = ::read(descriptor, text.data() + filled, text.size() - filled);
    if (count <= 0) break;
    filled += static_cast<size_t>(count);
  }
  ::close(descriptor);
  text.resize(filled);
  return text;
}

constexpr int kBetween = 9;  // fields of proc_pid_stat(5) between ppid and utime

}  // namespace

// "4711 (name) S 4700 ...", where the name may hold anything. Of the process's first thread, whose
// state is the process's own.
ProcessStatus process_status(int pid) {
  const std::string text = head_of(cat("/proc/", pid, "/task/", pid, "/stat"));
  const size_t name_end = text.rfind(')');
  ProcessStatus status;
  if (name_end == std::string::npos || name_end + 4 >= text.size()) return status;
  status.state = text[name_end + 2];
  std::istringstream fields(text.substr(name_end + 4));
  fields >> status.parent;
  std::string unread;
  for (int i = 0; i < kBetween; ++i) fields >> unread;
  fields >> status.in_program >> status.in_system;
  return status;
}

std::string why_it_does_not_run(const ProcessStatus& status) {
  switch (status.state) {
    case 'T':
      return "is stopped (SIGSTOP)";
    case 't':
      return "is held by a debugger";
    case 'D':
      return "waits for a disk or a network file system";
    case 'Z':
      return "has ended";
    default:
      return {};
  }
}

std::vector<int> children_of(int pid) {
  std::vector<int> children;
  std::error_code error;
  for (fs::directory_iterator entry("/proc", error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    int child = 0;
    const auto [parsed, failed] = std::from_chars(name.data(), name.data() + name.size(), child);
    if (failed != std::errc() || parsed != name.data() + name.size()) continue;
    if (process_status(child).parent == pid) children.push_back(child);
  }
  return children;
}

std::string rank_of_process(int pid) {
  const std::string environment = head_of(cat("/proc/", pid, "/environ"));
  for (const std::string_view name :
       {"OMPI_COMM_WORLD_RANK=", "PMIX_RANK=", "PMI_RANK=", "SLURM_PROCID="}) {
    size_t at = environment.find(name);
    while (at != std::string::npos && at > 0 && environment[at - 1] != '\0') {
      at = environment.find(name, at + 1);
    }
    if (at != std::string::npos) return environment.c_str() + at + name.size();
  }
  return {};
}

}  // namespace tptrain
