#include "io_faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace {

enum class Kind { none, kill, kill_after, stop, error, short_write };

// Whether a full or broken disk would refuse the call as well (IO_FAULTS_STAYS).
enum class Takes { space, nothing };

// Set before main, or by io_faults_arm between two uses; never torn down, since files are closed by
// destructors that run after this library's own would.
struct Plan {
  std::string directory;
  int rank = 0;
  bool hits_this_rank = false;
  long at = 0;
  Kind kind = Kind::none;
  int error = 0;
  bool stays = false;
  int calls = -1;  // descriptors of the record; -1: none
  int data = -1;
  int hit = -1;
};

Plan& plan() {
  static Plan* const instance = new Plan;
  return *instance;
}

std::atomic<long> counted{0};
std::mutex record_mutex;

template <typename Function>
Function* next(const char* name) {
  void* const found = dlsym(RTLD_NEXT, name);
  if (found == nullptr) abort();
  return reinterpret_cast<Function*>(found);
}
// The C library's function of that name.
#define NEXT(name) static auto* const real = next<decltype(::name)>(#name)

// Its own output goes by the system call itself: it must not count itself.
void put(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const long done = syscall(SYS_write, descriptor, text.data(), text.size());
    if (done <= 0) return;
    text.remove_prefix(static_cast<size_t>(done));
  }
}

std::string link_of(int descriptor) {
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
  char target[PATH_MAX];
  const ssize_t length = readlink(name, target, sizeof target);
  return length < 0 ? std::string() : std::string(target, static_cast<size_t>(length));
}

std::string absolute(int directory, const char* path) {
  if (path == nullptr) return {};
  if (path[0] == '/') return path;
  char here[PATH_MAX];
  const std::string base = directory == AT_FDCWD
                               ? std::string(getcwd(here, sizeof here) == nullptr ? "" : here)
                               : link_of(directory);
  return base + "/" + path;
}

bool is_under(std::string_view path) {
  const std::string& root = plan().directory;
  return !root.empty() && path.starts_with(root) &&
         (path.size() == root.size() || path[root.size()] == '/');
}

long now_us() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

// One call of those that are counted: the fault happens when it begins; the rest is its record.
class Call {
 public:
  Call(const char* name, std::string path, Takes takes = Takes::nothing)
      : name_(name), path_(std::move(path)), counts_(is_under(path_)) {
    if (!counts_) return;
    begin_us_ = now_us();
    number_ = counted.fetch_add(1) + 1;
    const Plan& p = plan();
    if (!p.hits_this_rank || p.kind == Kind::none || p.at == 0) return;
    hit_ = number_ == p.at || (p.stays && number_ > p.at && takes == Takes::space);
    if (!hit_) return;
    say_hit();
    if (p.kind == Kind::kill) kill(getpid(), SIGKILL);
    if (p.kind == Kind::stop) kill(getpid(), SIGSTOP);
    fails_ = p.kind == Kind::error;
  }

  /// Where it is to fail: errno is set, and the call is not made.
  bool fails() {
    if (fails_) {
      record("", -1);
      errno = plan().error;
    }
    return fails_;
  }
  bool is_short() const { return hit_ && plan().kind == Kind::short_write; }
  bool fails_after() const { return fails_; }
  bool counts() const { return counts_; }

  /// The call was made, with this result; `more` stands in the record. Keeps errno.
  template <typename Result>
  Result done(Result result, const std::string& more = "") {
    if (!counts_) return result;
    const int error = errno;
    record(more, static_cast<long>(result));
    if (hit_ && plan().kind == Kind::kill_after) kill(getpid(), SIGKILL);
    errno = error;
    return result;
  }
  void wrote(const void* bytes, size_t count, long at) {
    bytes_ = {static_cast<const char*>(bytes), count};
    at_ = at;
  }

 private:
  void say_hit() const {
    if (plan().hit < 0) return;
    put(plan().hit, std::to_string(number_) + "\t" + name_ + "\t" + path_ + "\n");
  }
  void record(const std::string& more, long result) {
    if (plan().calls < 0) return;
    const std::lock_guard lock(record_mutex);
    std::string line = std::to_string(begin_us_) + "\t" + std::to_string(now_us()) + "\t" +
                       std::to_string(number_) + "\t" + name_ + "\t" + path_ + "\t" + more + "\t" +
                       std::to_string(result) + "\t" + std::to_string(at_) + "\n";
    if (result > 0 && !bytes_.empty())
      put(plan().data, bytes_.substr(0, static_cast<size_t>(result)));
    put(plan().calls, line);
  }

  const char* name_;
  std::string path_;
  bool counts_;
  long begin_us_ = 0;
  long number_ = 0;
  bool hit_ = false;
  bool fails_ = false;
  std::string_view bytes_;
  long at_ = -1;
};

Kind kind_of(std::string_view name, int& error) {
  if (name.empty()) return Kind::none;
  if (name == "kill") return Kind::kill;
  if (name == "kill_after") return Kind::kill_after;
  if (name == "stop") return Kind::stop;
  if (name == "short") return Kind::short_write;
  error = name == "EIO"      ? EIO
          : name == "ENOSPC" ? ENOSPC
          : name == "EDQUOT" ? EDQUOT
          : name == "EINTR"  ? EINTR
                             : 0;
  if (error == 0) {
    fprintf(stderr, "io_faults: unknown kind\n");
    _exit(125);
  }
  return Kind::error;
}

int open_record(const char* directory, int rank, const char* what) {
  const std::string path = std::string(directory) + "/rank-" + std::to_string(rank) + "." + what;
  return static_cast<int>(
      syscall(SYS_openat, AT_FDCWD, path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
}

std::string variable(const char* name) {
  const char* const value = getenv(name);
  return value == nullptr ? "" : value;
}

__attribute__((constructor)) void arm_by_environment() {
  const std::string directory = variable("IO_FAULTS_DIR");
  if (directory.empty()) return;
  const std::string rank = variable("OMPI_COMM_WORLD_RANK");
  const std::string hit = variable("IO_FAULTS_RANK");
  const bool hits = hit == "any" || hit == rank;
  io_faults_arm(directory.c_str(), atoi(rank.c_str()),
                hits ? atol(variable("IO_FAULTS_AT").c_str()) : 0,
                variable("IO_FAULTS_KIND").c_str(), variable("IO_FAULTS_STAYS") == "1",
                variable("IO_FAULTS_RECORD").c_str());
}

// --- the shapes that several calls share -----------------------------------------------------

bool for_writing(int flags) { return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0; }

template <typename Make>
int opened(int directory, const char* path, int flags, Make&& make) {
  Call call("open", absolute(directory, path), for_writing(flags) ? Takes::space : Takes::nothing);
  if (call.fails()) return -1;
  return call.done(make(), std::to_string(flags & ~O_CLOEXEC));
}

template <typename Make>
auto on_descriptor(const char* name, int descriptor, Takes takes, Make&& make) -> decltype(make()) {
  if (plan().directory.empty()) return make();
  Call call(name, link_of(descriptor), takes);
  if (call.fails()) return -1;
  return call.done(make());
}

// `make(count)`: writes that many of the bytes.
template <typename Make>
ssize_t written(const char* name, int descriptor, const void* bytes, size_t count, long at,
                Make&& make) {
  if (plan().directory.empty()) return make(count);
  Call call(name, link_of(descriptor), Takes::space);
  if (call.fails()) return -1;
  if (call.is_short() && count > 1) count /= 2;
  call.wrote(bytes, count, at);
  return call.done(make(count), std::to_string(count));
}

// Closing happens whatever is said of it: a descriptor must not leak for a test.
template <typename Make>
int closed(const char* name, int descriptor, Make&& make) {
  if (plan().directory.empty()) return make();
  Call call(name, link_of(descriptor));
  const int result = make();
  if (!call.fails_after()) return call.done(result);
  call.fails();
  return -1;
}

template <typename Make>
int named(const char* name, const std::string& path, Takes takes, const std::string& more,
          Make&& make) {
  Call call(name, path, takes);
  if (call.fails()) return -1;
  return call.done(make(), more);
}

bool writes(const char* mode) { return strpbrk(mode, "wa+") != nullptr; }

template <typename Make>
FILE* stream_opened(const char* path, const char* mode, Make&& make) {
  Call call("open", absolute(AT_FDCWD, path), writes(mode) ? Takes::space : Takes::nothing);
  if (call.fails()) return nullptr;
  FILE* const file = make();
  call.done(file == nullptr ? -1 : 0, mode);
  return file;
}

}  // namespace

extern "C" {

void io_faults_arm(const char* directory, int rank, long at, const char* kind, int stays,
                   const char* record_directory) {
  Plan& p = plan();
  for (const int descriptor : {p.calls, p.data, p.hit}) {
    if (descriptor >= 0) syscall(SYS_close, descriptor);
  }
  p = Plan();
  p.rank = rank;
  p.hits_this_rank = at > 0;
  p.at = at;
  p.kind = kind_of(kind == nullptr ? "" : kind, p.error);
  p.stays = stays != 0;
  if (record_directory != nullptr && *record_directory != '\0') {
    p.calls = open_record(record_directory, rank, "calls");
    p.data = open_record(record_directory, rank, "data");
    p.hit = open_record(record_directory, rank, "hit");
  }
  counted = 0;
  p.directory = directory == nullptr ? "" : directory;
}

long io_faults_count(void) { return counted; }

void io_faults_note(const char* text) {
  const Plan& p = plan();
  if (p.calls < 0) return;
  const std::string now = std::to_string(now_us());
  const std::lock_guard lock(record_mutex);
  put(p.calls, now + "\t" + now + "\t0\tnote\t\t" + text + "\t0\t-1\n");
}

// --- the C library's names -------------------------------------------------------------------

static mode_t mode_argument(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

#define DEFINE_OPEN(name)                                                          \
  int name(const char* path, int flags, ...) {                                     \
    NEXT(name);                                                                    \
    va_list arguments;                                                             \
    va_start(arguments, flags);                                                    \
    const mode_t mode = mode_argument(flags, arguments);                           \
    va_end(arguments);                                                             \
    return opened(AT_FDCWD, path, flags, [&] { return real(path, flags, mode); }); \
  }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name)                                                                    \
  int name(int directory, const char* path, int flags, ...) {                                  \
    NEXT(name);                                                                                \
    va_list arguments;                                                                         \
    va_start(arguments, flags);                                                                \
    const mode_t mode = mode_argument(flags, arguments);                                       \
    va_end(arguments);                                                                         \
    return opened(directory, path, flags, [&] { return real(directory, path, flags, mode); }); \
  }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

FILE* fopen(const char* path, const char* mode) {
  NEXT(fopen);
  return stream_opened(path, mode, [&] { return real(path, mode); });
}
FILE* fopen64(const char* path, const char* mode) {
  NEXT(fopen64);
  return stream_opened(path, mode, [&] { return real(path, mode); });
}
int fflush(FILE* file) {
  NEXT(fflush);
  if (file == nullptr || plan().directory.empty() || __fpending(file) == 0) return real(file);
  Call call("write", link_of(fileno(file)), Takes::space);
  if (call.fails()) {
    const int error = errno;
    __fpurge(file);
    errno = error;
    return EOF;
  }
  return call.done(real(file));
}
int fclose(FILE* file) {
  NEXT(fclose);
  return closed("close", fileno(file), [&] { return real(file); });
}

ssize_t read(int descriptor, void* bytes, size_t count) {
  NEXT(read);
  return on_descriptor("read", descriptor, Takes::nothing,
                       [&] { return real(descriptor, bytes, count); });
}
ssize_t pread(int descriptor, void* bytes, size_t count, off_t at) {
  NEXT(pread);
  return on_descriptor("pread", descriptor, Takes::nothing,
                       [&] { return real(descriptor, bytes, count, at); });
}
ssize_t pread64(int descriptor, void* bytes, size_t count, off64_t at) {
  NEXT(pread64);
  return on_descriptor("pread", descriptor, Takes::nothing,
                       [&] { return real(descriptor, bytes, count, at); });
}
ssize_t write(int descriptor, const void* bytes, size_t count) {
  NEXT(write);
  return written("write", descriptor, bytes, count, -1,
                 [&](size_t some) { return real(descriptor, bytes, some); });
}
ssize_t pwrite(int descriptor, const void* bytes, size_t count, off_t at) {
  NEXT(pwrite);
  return written("pwrite", descriptor, bytes, count, at,
                 [&](size_t some) { return real(descriptor, bytes, some, at); });
}
ssize_t pwrite64(int descriptor, const void* bytes, size_t count, off64_t at) {
  NEXT(pwrite64);
  return written("pwrite", descriptor, bytes, count, at,
                 [&](size_t some) { return real(descriptor, bytes, some, at); });
}
ssize_t writev(int descriptor, const struct iovec* parts, int count) {
  NEXT(writev);
  if (plan().directory.empty() || !is_under(link_of(descriptor)))
    return real(descriptor, parts, count);
  // As one write of what they hold together: a short one may end anywhere.
  std::string bytes;
  for (int i = 0; i < count; ++i)
    bytes.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  return write(descriptor, bytes.data(), bytes.size());
}

int fsync(int descriptor) {
  NEXT(fsync);
  return on_descriptor("fsync", descriptor, Takes::space, [&] { return real(descriptor); });
}
int fdatasync(int descriptor) {
  NEXT(fdatasync);
  return on_descriptor("fsync", descriptor, Takes::space, [&] { return real(descriptor); });
}
int sync_file_range(int descriptor, off64_t at, off64_t count, unsigned flags) {
  NEXT(sync_file_range);
  return on_descriptor("sync_file_range", descriptor, Takes::space,
                       [&] { return real(descriptor, at, count, flags); });
}
#define DEFINE_FTRUNCATE(name, type)                                                     \
  int name(int descriptor, type size) noexcept {                                         \
    NEXT(name);                                                                          \
    if (plan().directory.empty()) return real(descriptor, size);                         \
    return named("ftruncate", link_of(descriptor), Takes::nothing, std::to_string(size), \
                 [&] { return real(descriptor, size); });                                \
  }
DEFINE_FTRUNCATE(ftruncate, off_t)
DEFINE_FTRUNCATE(ftruncate64, off64_t)
int fallocate(int descriptor, int mode, off_t at, off_t count) {
  NEXT(fallocate);
  return on_descriptor("fallocate", descriptor, Takes::space,
                       [&] { return real(descriptor, mode, at, count); });
}
int flock(int descriptor, int operation) noexcept {
  NEXT(flock);
  return on_descriptor("flock", descriptor, Takes::nothing,
                       [&] { return real(descriptor, operation); });
}
int close(int descriptor) {
  NEXT(close);
  return closed("close", descriptor, [&] { return real(descriptor); });
}

int rename(const char* from, const char* to) noexcept {
  NEXT(rename);
  return named("rename", absolute(AT_FDCWD, from), Takes::space, absolute(AT_FDCWD, to),
               [&] { return real(from, to); });
}
int link(const char* from, const char* to) noexcept {
  NEXT(link);
  return named("link", absolute(AT_FDCWD, to), Takes::space, absolute(AT_FDCWD, from),
               [&] { return real(from, to); });
}
int unlink(const char* path) noexcept {
  NEXT(unlink);
  return named("unlink", absolute(AT_FDCWD, path), Takes::nothing, "", [&] { return real(path); });
}
int unlinkat(int directory, const char* path, int flags) noexcept {
  NEXT(unlinkat);
  return named((flags & AT_REMOVEDIR) != 0 ? "rmdir" : "unlink", absolute(directory, path),
               Takes::nothing, "", [&] { return real(directory, path, flags); });
}
// As the C library has it, which calls the two where nothing can stand before them.
int remove(const char* path) noexcept {
  if (unlink(path) == 0) return 0;
  return errno == EISDIR ? rmdir(path) : -1;
}
int rmdir(const char* path) noexcept {
  NEXT(rmdir);
  return named("rmdir", absolute(AT_FDCWD, path), Takes::nothing, "", [&] { return real(path); });
}
int mkdir(const char* path, mode_t mode) noexcept {
  NEXT(mkdir);
  return named("mkdir", absolute(AT_FDCWD, path), Takes::space, "",
               [&] { return real(path, mode); });
}
DIR* opendir(const char* path) {
  NEXT(opendir);
  Call call("opendir", absolute(AT_FDCWD, path));
  if (call.fails()) return nullptr;
  DIR* const directory = real(path);
  call.done(directory == nullptr ? -1 : 0);
  return directory;
}

}  // extern "C"
