#include "hub/out_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/text.h"

namespace tptrain::hub {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& what, const char* call) {
  const int error = errno;
  Problem p = problem(cat(call, ": ", std::strerror(error))).at(what);
  if (error == ENOSPC || error == EDQUOT || error == EIO)
    throw DataError(std::move(p).remedy("Free some space; the same command again goes on."));
  throw ConfigError(std::move(p).remedy("Choose another folder with --out."));
}

int checked(int number, const std::string& what, const char* call) {
  if (number < 0) fail(what, call);
  return number;
}

}  // namespace

Handle::~Handle() {
  if (number_ >= 0) ::close(number_);
}
Handle::Handle(Handle&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    if (number_ >= 0) ::close(number_);
    number_ = std::exchange(other.number_, -1);
  }
  return *this;
}

OutFolder::OutFolder(const fs::path& path) : path_(path) {
  create_directories_durably(path, FailAs::config_error);
  root_ = Handle(checked(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), path, "open"));
  // Where the file system has no such locks the rest of a second one's writing stays harmless: what
  // gets a name is checked and whole.
  if (::flock(root_.number(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    throw ConfigError(problem("another process fetches into this folder")
                          .at(path.string())
                          .must("be alone there")
                          .remedy("Wait for its end, or choose another folder with --out."));
  const fs::path staging = path / kStagingFolder;
  if (::mkdirat(root_.number(), kStagingFolder, 0777) != 0 && errno != EEXIST)
    fail(staging, "mkdir");
  staging_ = Handle(checked(
      ::openat(root_.number(), kStagingFolder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
      staging, "open"));
}

OutFolder::~OutFolder() {
  ::unlinkat(root_.number(), kStagingFolder, AT_REMOVEDIR);  // stays where unfinished files are
}

Handle OutFolder::parent_of(const std::string& file, bool make) const {
  Handle folder(checked(::dup(root_.number()), path_, "dup"));
  for (size_t begin = 0, end = 0; (end = file.find('/', begin)) != std::string::npos;
       begin = end + 1) {
    const std::string name = file.substr(begin, end - begin);
    const std::string where = (path_ / file.substr(0, end)).string();
    if (make && ::mkdirat(folder.number(), name.c_str(), 0777) != 0 && errno != EEXIST)
      fail(where, "mkdir");
    const int next =
        ::openat(folder.number(), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (next < 0 && errno == ENOENT && !make) return Handle();
    if (next < 0 && (errno == ELOOP || errno == ENOTDIR))
      throw ConfigError(problem("a link or a file stands where a folder is to be")
                            .at(where)
                            .must("be a folder: no link is followed out of --out")
                            .remedy("Remove it, or choose another folder with --out."));
    folder = Handle(checked(next, where, "open"));
  }
  return folder;
}

std::optional<Handle> OutFolder::open(const std::string& file) const {
  const Handle parent = parent_of(file, /*make=*/false);
  if (parent.number() < 0) return std::nullopt;
  const std::string name = file.substr(file.rfind('/') + 1);
  const std::string where = (path_ / file).string();
  struct stat facts {};
  if (::fstatat(parent.number(), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return std::nullopt;
    fail(where, "stat");
  }
  if (!S_ISREG(facts.st_mode))
    throw ConfigError(problem("something that is no file has the name of one of the repository")
                          .at(where)
                          .must("be a file: no link is followed, and no folder replaced")
                          .remedy("Remove it, or choose another folder with --out."));
  return Handle(checked(::openat(parent.number(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC),
                        where, "open"));
}

Handle OutFolder::open_unfinished(const std::string& name) const {
  return Handle(checked(
      ::openat(staging_.number(), name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666),
      (path_ / kStagingFolder / name).string(), "open"));
}

void OutFolder::finish(const Handle& unfinished, const std::string& name,
                       const std::string& file) const {
  const std::string where = (path_ / file).string();
  checked(::fsync(unfinished.number()), where, "fsync");
  const Handle parent = parent_of(file, /*make=*/true);
  const std::string own = file.substr(file.rfind('/') + 1);
  checked(::renameat(staging_.number(), name.c_str(), parent.number(), own.c_str()), where,
          "rename");
  checked(::fsync(parent.number()), where, "fsync");
}

int64_t size_of(const Handle& file, const std::string& name) {
  struct stat facts {};
  checked(::fstat(file.number(), &facts), name, "stat");
  return facts.st_size;
}

void truncate(const Handle& file, const std::string& name) {
  checked(::ftruncate(file.number(), 0), name, "truncate");
  checked(static_cast<int>(::lseek(file.number(), 0, SEEK_SET)), name, "seek");
}

void append(const Handle& file, const std::string& name, std::string_view bytes) {
  if (::lseek(file.number(), 0, SEEK_END) < 0) fail(name, "seek");
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.number(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(name, "write");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

size_t read_at(const Handle& file, const std::string& name, int64_t at, void* buffer,
               size_t count) {
  for (;;) {
    const ssize_t read = ::pread(file.number(), buffer, count, at);
    if (read >= 0) return static_cast<size_t>(read);
    if (errno != EINTR) fail(name, "read");
  }
}

}  // namespace tptrain::hub
