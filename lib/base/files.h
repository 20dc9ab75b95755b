// Files that survive a crash, by direct system calls: every write is checked, every durable step is
// fsynced. Also hashes, maps and locks. A message names the path, the call and errno's text. The
// kind of error (and so the exit code) is the caller's: `fail_as`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tptrain {

/// Which error a failed call becomes: whose file it is decides the kind, and the exit code, that
/// the user sees.
enum class FailAs {
  checkpoint_error,
  data_error,
  config_error,
  run_dir_error  // of run_dir as the run file names it: a config error, but a disk that is full or
                 // fails is no fault of the run file: then a checkpoint error
};

/// Incremental SHA-256 (OpenSSL).
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(const void* bytes, size_t count);
  void update(std::string_view text) { update(text.data(), text.size()); }
  /// 64 lower-case hex digits; the object is spent afterwards.
  std::string hex();
  /// The same as 32 bytes; likewise.
  std::string digest();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};
std::string sha256_hex(std::string_view bytes);
/// Hash of a whole file, read in pieces.
std::string sha256_file(const std::filesystem::path& path,
                        FailAs fail_as = FailAs::checkpoint_error);

/// Likewise of the bytes [begin, end) of a file. An error where it ends before.
std::string sha256_of_range(const std::filesystem::path& path, int64_t begin, int64_t end,
                            FailAs fail_as = FailAs::checkpoint_error);
/// Its size. An error where it is missing or no regular file.
int64_t file_size(const std::filesystem::path& path, FailAs fail_as = FailAs::checkpoint_error);

/// What DurableFile gives back as the hash of a file: of the whole, or the root over its chunks
/// (chunk_hash.h), which all cores work on. Chunks are also written beside what gives the bytes, by
/// a thread of their own and past the page cache where the file system takes that.
enum class FileHash { whole, chunks };

/// A new file written front to back, hashed on the way. Nothing is durable before commit(). A
/// destructor without commit leaves the partial file.
class DurableFile {
 public:
  /// Creates `path` (O_EXCL: an existing file is an error).
  explicit DurableFile(const std::filesystem::path& path, FailAs fail_as = FailAs::checkpoint_error,
                       FileHash hash = FileHash::whole);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;
  void write(const void* bytes, size_t count);
  void write(std::string_view text) { write(text.data(), text.size()); }
  struct Written {
    int64_t size_bytes = 0;
    std::string sha256 = {};               // as `hash` says
    std::vector<std::string> chunks = {};  // FileHash::chunks: of each chunk
  };
  /// fsync and close. The object is spent afterwards, even where this throws: then the file is not
  /// to be trusted. The name becomes durable with an fsync of the directory (rename_durably,
  /// fsync_directory).
  Written commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes `text` to `path` so that a crash leaves the old content or the new, whole: temporary,
/// fsync, rename, fsync of the directory.
void write_file_atomically(const std::filesystem::path& path, std::string_view text,
                           FailAs fail_as = FailAs::checkpoint_error);
/// fsync of a directory: names made, renamed or removed in it are durable afterwards.
void fsync_directory(const std::filesystem::path& directory,
                     FailAs fail_as = FailAs::checkpoint_error);
/// mkdir -p, with fsync of every parent that got a new entry.
void create_directories_durably(const std::filesystem::path& directory,
                                FailAs fail_as = FailAs::checkpoint_error);
/// rename(2) within one file system, then fsync of the parent directory.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to,
                    FailAs fail_as = FailAs::checkpoint_error);
/// Whole file as bytes. An error where it is missing, unreadable, no regular file or larger than
/// limit_bytes.
std::string read_file(const std::filesystem::path& path, int64_t limit_bytes = int64_t{1} << 31,
                      FailAs fail_as = FailAs::data_error);
/// Free bytes for an ordinary user on the file system of `path`.
int64_t free_space_bytes(const std::filesystem::path& path,
                         FailAs fail_as = FailAs::checkpoint_error);

/// A read-only map of a whole file. Empty files map to an empty span.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path, FailAs fail_as = FailAs::data_error);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  MappedFile(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// An exclusive lock on a file in run_dir (flock), held as long as the object lives; released by
/// the kernel when the process dies.
class FileLock {
 public:
  /// Throws ConfigError naming the holder (its host and process id stand in the file) where another
  /// process holds it. On a file system without flock nothing is locked: see not_supported().
  explicit FileLock(const std::filesystem::path& path);
  /// "" where the lock is held, else what the system said.
  const std::string& not_supported() const { return not_supported_; }
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
  std::string not_supported_;
};

/// "process 123 on host a": this process, as it tells others.
std::string this_process();

}  // namespace tptrain
