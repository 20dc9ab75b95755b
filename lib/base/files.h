// Files that survive a crash, by direct system calls: every write is checked, every durable step is fsynced. Also hashes, maps and locks.
// All functions throw Error subclasses as their comment says; a message names the path, the call and errno's text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tptrain {

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

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};
std::string sha256_hex(std::string_view bytes);
/// Hash of a whole file, read in pieces. Throws std::system_error-like Error (CheckpointError) where it cannot be read.
std::string sha256_file(const std::filesystem::path& path);

/// A new file written front to back, hashed on the way. Nothing is durable before commit(). A destructor without commit leaves the partial file.
class DurableFile {
 public:
  /// Creates `path` (O_EXCL: an existing file is an error). Throws CheckpointError.
  explicit DurableFile(const std::filesystem::path& path);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;
  void write(const void* bytes, size_t count);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// fsync and close. Returns size and hash.
  struct Written {
    int64_t size_bytes = 0;
    std::string sha256;
  };
  Written commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes `text` to `path` so that a crash leaves the old content or the new, whole: temporary, fsync, rename, fsync of the directory.
void write_file_atomically(const std::filesystem::path& path, std::string_view text);
/// fsync of a directory: names made, renamed or removed in it are durable afterwards.
void fsync_directory(const std::filesystem::path& directory);
/// mkdir -p, with fsync of every parent that got a new entry.
void create_directories_durably(const std::filesystem::path& directory);
/// rename(2) within one file system, then fsync of the parent directory.
void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to);
/// Whole file as bytes. Throws DataError (missing, unreadable, larger than limit_bytes).
std::string read_file(const std::filesystem::path& path, int64_t limit_bytes = int64_t{1} << 31);
/// Free bytes for an ordinary user on the file system of `path`.
int64_t free_space_bytes(const std::filesystem::path& path);

/// A read-only map of a whole file. Empty files map to an empty span. Throws DataError.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;
  MappedFile(const MappedFile&) = delete;
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// An exclusive lock on a file (flock), held as long as the object lives; released by the kernel when the process dies.
class FileLock {
 public:
  /// Throws ConfigError naming the holder (its host and process id stand in the file) where another process holds it.
  explicit FileLock(const std::filesystem::path& path);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace tptrain
