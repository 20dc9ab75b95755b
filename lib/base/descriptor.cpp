// Descriptor: open, read, write, fsync, close, each checked.
#include "base/descriptor.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "base/interrupted_call.h"
#include "base/text.h"
#include "base/work.h"

namespace tptrain {

namespace fs = std::filesystem;

namespace {

// At once: a slow disk is seen to move.
constexpr size_t kWriteBytes = size_t{8} << 20;

std::string remedy_for(int error) {
  switch (error) {
    case ENOSPC:
      return "Free space (or inodes: `df -i` counts them) on this file system, or choose a folder "
             "on another one.";
    case EDQUOT:
      return "The disk quota is used up: free space, or choose a folder on another file system.";
    case EACCES:
    case EPERM:
      return "Check the owner and the permissions of the file and of the folders above it.";
    case EROFS:
      return "The file system is mounted read-only: choose another folder.";
    case EIO:
    case ESTALE:
    case ENXIO:
    case ETIMEDOUT:
      return "The disk, or the network file system, failed: the kernel's log (`dmesg`) of the host "
             "says more.";
    case ENOENT:
      return "Check the path; a relative one starts at the current directory.";
    case EEXIST:
      return "Files are never overwritten: remove or rename what stands there.";
    case EXDEV:
      return "Both paths must be on one file system.";
    default:
      return "";
  }
}

// What no run file and no permission is to blame for.
bool is_fault_of_disk(int error) {
  return error == ENOSPC || error == EDQUOT || error == EIO || error == ESTALE || error == ENXIO ||
         error == ETIMEDOUT || error == EFBIG;
}

}  // namespace

void throw_as(FailAs kind, Problem p) {
  if (kind == FailAs::config_error || kind == FailAs::run_dir_error)
    throw ConfigError(std::move(p));
  if (kind == FailAs::data_error) throw DataError(std::move(p));
  throw CheckpointError(std::move(p));
}

void fail_call(FailAs kind, const fs::path& path, std::string_view call, int error) {
  if (kind == FailAs::run_dir_error && is_fault_of_disk(error)) kind = FailAs::checkpoint_error;
  throw_as(kind, problem(cat(call, " failed: ", std::generic_category().message(error)))
                     .at(path.string())
                     .remedy(remedy_for(error)));
}

Descriptor::Descriptor(const fs::path& path, int flags, FailAs kind) : path_(path), kind_(kind) {
  number_ = until_not_interrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, 0666); });
  if (number_ < 0) fail_call(kind, path, "open", errno);
}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

int Descriptor::release() { return std::exchange(number_, -1); }

void Descriptor::write_all(const void* bytes, size_t count) const {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t done = ::write(number_, at, std::min(count, kWriteBytes));
    if (done < 0 && errno == EINTR) continue;
    // Past the page cache a write must be aligned, which it is not after one that was cut short.
    if (done < 0 && errno == EINVAL && (::fcntl(number_, F_GETFL) & O_DIRECT) != 0) {
      end_direct();
      continue;
    }
    if (done < 0) fail_call(kind_, path_, "write", errno);
    work_done(WorkUnit::bytes, done);
    at += done;
    count -= static_cast<size_t>(done);
  }
}

size_t Descriptor::read_some(void* bytes, size_t count) const {
  while (true) {
    const ssize_t done = ::read(number_, bytes, count);
    if (done >= 0) {
      work_done(WorkUnit::bytes, done);
      return static_cast<size_t>(done);
    }
    if (errno != EINTR) fail_call(kind_, path_, "read", errno);
  }
}

// A failed fsync is not tried again: the kernel may have dropped the dirty pages and would then
// report success.
void Descriptor::sync() const {
  if (until_not_interrupted([&] { return ::fsync(number_); }) != 0)
    fail_call(kind_, path_, "fsync", errno);
}

void Descriptor::close_checked() {
  // Linux has released the descriptor even where close says EINTR; it must not be closed twice.
  if (::close(release()) != 0 && errno != EINTR) fail_call(kind_, path_, "close", errno);
}

struct stat Descriptor::status() const {
  struct stat info;
  if (::fstat(number_, &info) != 0) fail_call(kind_, path_, "fstat", errno);
  return info;
}

bool Descriptor::try_direct() const {
  const int flags = ::fcntl(number_, F_GETFL);
  return flags >= 0 && ::fcntl(number_, F_SETFL, flags | O_DIRECT) == 0;
}

void Descriptor::end_direct() const {
  const int flags = ::fcntl(number_, F_GETFL);
  if (flags < 0 || ::fcntl(number_, F_SETFL, flags & ~O_DIRECT) != 0)
    fail_call(kind_, path_, "fcntl", errno);
}

void Descriptor::begin_writeback(int64_t begin, int64_t count) const {
  // Advice: what fails here is reported by the fsync that follows.
  ::sync_file_range(number_, begin, count, SYNC_FILE_RANGE_WRITE);
}

}  // namespace tptrain
