#include "base/siblings.h"

#include <fcntl.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/text.h"

namespace tptrain {

namespace {

namespace fs = std::filesystem;

struct Status {
  char state = '?';
  int parent = 0;
};

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

// "4711 (name) S 4700 ...", where the name may hold anything.
Status status_of(const fs::path& process) {
  const std::string text = head_of(process / "stat");
  const size_t name_end = text.rfind(')');
  Status status;
  if (name_end == std::string::npos || name_end + 4 >= text.size()) return status;
  status.state = text[name_end + 2];
  std::from_chars(text.data() + name_end + 4, text.data() + text.size(), status.parent);
  return status;
}

std::string what_it_does(char state) {
  switch (state) {
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

std::string rank_of(const fs::path& process) {
  const std::string environment = head_of(process / "environ");
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

}  // namespace

std::string siblings_that_do_not_run() {
  std::vector<std::string> found;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  for (fs::directory_iterator entry("/proc", error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (name == std::to_string(::getpid())) continue;
    const Status status = status_of(entry->path());
    const std::string state = what_it_does(status.state);
    if (status.parent != ::getppid() || state.empty()) continue;
    std::error_code gone;
    // A process that has ended has no program any more.
    if (status.state != 'Z' && fs::read_symlink(entry->path() / "exe", gone) != program) continue;
    const std::string rank = rank_of(entry->path());
    found.push_back(
        cat(rank.empty() ? "" : cat("rank ", rank, " "), "(process ", name, ") ", state));
  }
  return join(found, ", ");
}

}  // namespace tptrain
