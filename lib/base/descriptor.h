// A file descriptor and its system calls, each checked: what files.cpp and chunked writing share.
// Private to this folder.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <string_view>

#include "base/error.h"
#include "base/files.h"

namespace tptrain {

[[noreturn]] void throw_as(FailAs kind, Problem p);
/// The error of a system call: its name, errno's text, what can be done.
[[noreturn]] void fail_call(FailAs kind, const std::filesystem::path& path, std::string_view call,
                            int error);

/// Closed on every way out. close_checked() is for written files, where close may report a failed
/// write.
class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags, FailAs kind);
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int number() const { return number_; }
  int release();

  void write_all(const void* bytes, size_t count) const;
  /// Bytes read; 0 at the end of the file.
  size_t read_some(void* bytes, size_t count) const;
  void sync() const;
  void close_checked();
  struct stat status() const;

  /// Where the file system takes it: writes go past the page cache from here on.
  bool try_direct() const;
  void end_direct() const;
  /// Of bytes that were written: the kernel begins to put them on the disk now, rather than all
  /// in sync().
  void begin_writeback(int64_t begin, int64_t count) const;

 private:
  std::filesystem::path path_;
  FailAs kind_;
  int number_ = -1;
};

}  // namespace tptrain
