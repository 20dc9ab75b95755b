#include "data/preparing.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <map>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "base/directory.h"
#include "base/error.h"
#include "base/interrupted_call.h"
#include "base/text.h"
#include "base/work.h"
#include "data/token_output.h"

namespace tptrain::data {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBinTemporary = ".bin.tmp-";
constexpr std::string_view kIdxTemporary = ".idx.tmp-";

fs::path lock_of(const fs::path& stem) {
  return stem.parent_path() / cat(".", stem.filename().native(), ".lock");
}

int open_lock(const fs::path& path) {
  const int descriptor = until_not_interrupted(
      [&] { return ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666); });
  if (descriptor >= 0) return descriptor;
  throw DataError(problem(cat("open failed: ", std::generic_category().message(errno)))
                      .at(path.string())
                      .remedy("Make the directory writable, or set data.cache_dir to another."));
}

enum class Locked { yes, busy, not_supported };

Locked try_lock(int descriptor) {
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return Locked::yes;
  return errno == EWOULDBLOCK || errno == EINTR ? Locked::busy : Locked::not_supported;
}

/// Whether the file that was locked still has its name: its last holder removes it.
bool is_at(int descriptor, const fs::path& path) {
  struct stat held = {};
  struct stat named = {};
  return ::fstat(descriptor, &held) == 0 && ::stat(path.c_str(), &named) == 0 &&
         held.st_ino == named.st_ino && held.st_dev == named.st_dev;
}

/// The temporaries of a directory by the stem that they are of.
std::map<fs::path, std::vector<fs::path>> temporaries(const fs::path& directory) {
  std::map<fs::path, std::vector<fs::path>> found;
  // Whoever writes there says what is wrong where it cannot be read.
  for (const fs::path& path : entries_if_readable(directory)) {
    std::string name = path.filename().native();
    size_t at = name.find(kBinTemporary);
    if (at == std::string::npos && name.starts_with('.')) {
      name.erase(0, 1);
      at = name.find(kIdxTemporary);
    }
    if (at != std::string::npos) found[directory / name.substr(0, at)].push_back(path);
  }
  return found;
}

int64_t bytes_written(const fs::path& stem) {
  int64_t bytes = 0;
  const std::map<fs::path, std::vector<fs::path>> found = temporaries(stem.parent_path());
  const auto of_stem = found.find(stem);
  std::vector<fs::path> paths = entries_if_readable(parts_directory(stem));
  if (of_stem != found.end())
    paths.insert(paths.end(), of_stem->second.begin(), of_stem->second.end());
  for (const fs::path& path : paths) {
    std::error_code gone;
    const auto size = fs::file_size(path, gone);
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

}  // namespace

PreparingLock::PreparingLock(const fs::path& stem) : path_(lock_of(stem)) {
  std::optional<Work> waiting;
  int64_t seen = 0;
  while (true) {
    descriptor_ = open_lock(path_);
    const Locked locked = try_lock(descriptor_);
    if (locked == Locked::not_supported || (locked == Locked::yes && is_at(descriptor_, path_)))
      return;
    ::close(descriptor_);
    descriptor_ = -1;
    if (locked == Locked::yes) continue;  // of a file that is no more
    if (!waiting)
      waiting.emplace("waiting for another run that tokenizes the same text", WorkUnit::bytes);
    // A holder that has died has lost its lock; one that hangs makes no progress, and neither does
    // this process then. (work_done is an interruption point.)
    const int64_t bytes = bytes_written(stem);
    if (bytes > seen) work_done(WorkUnit::bytes, bytes - seen);
    seen = std::max(seen, bytes);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

PreparingLock::~PreparingLock() {
  if (descriptor_ < 0) return;
  // While it is held: whoever waits opens the next file of that name.
  ::unlink(path_.c_str());
  ::close(descriptor_);
}

void remove_abandoned(const fs::path& directory) {
  for (const auto& [stem, paths] : temporaries(directory)) {
    const fs::path lock = lock_of(stem);
    const int descriptor = open_lock(lock);
    if (try_lock(descriptor) == Locked::yes && is_at(descriptor, lock)) {
      std::error_code ignored;  // what cannot be removed is in nobody's way
      for (const fs::path& path : paths) fs::remove(path, ignored);
      ::unlink(lock.c_str());
    }
    ::close(descriptor);
  }
}

}  // namespace tptrain::data
