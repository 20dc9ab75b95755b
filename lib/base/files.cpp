#include "base/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "base/chunk_hash.h"
#include "base/descriptor.h"
#include "base/error.h"
#include "base/hex.h"
#include "base/host.h"
#include "base/interrupted_call.h"
#include "base/mapped_ranges.h"
#include "base/random_id.h"
#include "base/text.h"
#include "base/work.h"

namespace tptrain {

namespace fs = std::filesystem;

namespace {

ExitCode exit_code_of(FailAs kind) {
  if (kind == FailAs::config_error) return ExitCode::config;
  return kind == FailAs::data_error ? ExitCode::data : ExitCode::checkpoint;
}

fs::path parent_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

bool names_directory(const fs::path& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

void require_regular(const struct stat& info, const fs::path& path, FailAs kind) {
  if (S_ISREG(info.st_mode)) return;
  throw_as(kind, problem(S_ISDIR(info.st_mode) ? "this is a directory" : "this is a special file")
                     .at(path.string())
                     .must("be a regular file"));
}

}  // namespace

std::string sha256_file(const fs::path& path, FailAs fail_as) {
  const Descriptor file(path, O_RDONLY, fail_as);
  Sha256 hash;
  std::vector<char> piece(1 << 20);
  while (const size_t count = file.read_some(piece.data(), piece.size())) {
    hash.update(piece.data(), count);
  }
  return hash.hex();
}

std::string sha256_of_range(const fs::path& path, int64_t begin, int64_t end, FailAs fail_as) {
  const Descriptor file(path, O_RDONLY, fail_as);
  Sha256 hash;
  std::vector<char> piece(1 << 20);
  while (begin < end) {
    const auto wanted = std::min(static_cast<int64_t>(piece.size()), end - begin);
    const ssize_t count = ::pread(file.number(), piece.data(), static_cast<size_t>(wanted), begin);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_call(fail_as, path, "read", errno);
    if (count == 0)
      throw_as(fail_as, problem("the file became shorter while it was read").at(path.string()));
    work_done(WorkUnit::bytes, count);
    hash.update(piece.data(), static_cast<size_t>(count));
    begin += count;
  }
  return hash.hex();
}

int64_t file_size(const fs::path& path, FailAs fail_as) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK, fail_as);
  const struct stat info = file.status();
  require_regular(info, path, fail_as);
  return static_cast<int64_t>(info.st_size);
}

struct DurableFile::Impl {
  Impl(const fs::path& path, FailAs fail_as, FileHash hashed)
      : file(path, O_WRONLY | O_CREAT | O_EXCL, fail_as) {
    if (hashed == FileHash::whole) return;
    chunks.emplace([this](std::span<const char> chunk) { write_chunk(chunk); });
  }
  // On a thread of the hasher, chunk by chunk.
  void write_chunk(std::span<const char> chunk) {
    const bool whole = chunk.size() == static_cast<size_t>(kHashChunkBytes);
    if (whole && size_bytes == 0) direct = file.try_direct();
    if (!whole && std::exchange(direct, false)) file.end_direct();
    file.write_all(chunk.data(), chunk.size());
    const auto count = static_cast<int64_t>(chunk.size());
    if (!direct) file.begin_writeback(size_bytes, count);
    size_bytes += count;
  }
  void write_buffered(const void* bytes, size_t count) {
    hash.update(bytes, count);
    size_bytes += static_cast<int64_t>(count);
    if (buffer.size() + count > kBufferBytes) flush();
    if (count >= kBufferBytes) {
      file.write_all(bytes, count);
      return;
    }
    const char* first = static_cast<const char*>(bytes);
    buffer.insert(buffer.end(), first, first + count);
  }
  void flush() {
    file.write_all(buffer.data(), buffer.size());
    buffer.clear();
  }

  static constexpr size_t kBufferBytes = size_t{1} << 18;
  Descriptor file;
  Sha256 hash;
  std::vector<char> buffer;
  int64_t size_bytes = 0;             // written, or buffered
  bool direct = false;                // past the page cache
  std::optional<ChunkHasher> chunks;  // goes first: its threads write
};

DurableFile::DurableFile(const fs::path& path, FailAs fail_as, FileHash hash)
    : impl_(std::make_unique<Impl>(path, fail_as, hash)) {}
DurableFile::~DurableFile() = default;

void DurableFile::write(const void* bytes, size_t count) {
  if (!impl_) throw InternalError(problem("DurableFile::write after commit"));
  if (count == 0) return;
  impl_->chunks ? impl_->chunks->update(bytes, count) : impl_->write_buffered(bytes, count);
}

DurableFile::Written DurableFile::commit() {
  if (!impl_) throw InternalError(problem("DurableFile::commit called twice"));
  // Spent even where a call below throws: what a failed fsync left cannot be committed later.
  const std::unique_ptr<Impl> impl = std::move(impl_);
  Written written;
  if (impl->chunks) {
    written.chunks = impl->chunks->digests();
    written.sha256 = chunk_root(written.chunks);
  } else {
    impl->flush();
    written.sha256 = impl->hash.hex();
  }
  written.size_bytes = impl->size_bytes;
  impl->file.sync();
  impl->file.close_checked();
  return written;
}

void write_file_atomically(const fs::path& path, std::string_view text, FailAs fail_as) {
  const fs::path temporary =
      parent_of(path) / cat(".", path.filename().string(), ".tmp-", to_hex(random_word(), 16));
  try {
    DurableFile file(temporary, fail_as);
    file.write(text);
    file.commit();
    rename_durably(temporary, path, fail_as);
  } catch (...) {
    ::unlink(temporary.c_str());  // ours by its random name; the first error is the one to report
    throw;
  }
}

void fsync_directory(const fs::path& directory, FailAs fail_as) {
  const Descriptor file(directory, O_RDONLY | O_DIRECTORY, fail_as);
  const int result = until_not_interrupted([&] { return ::fsync(file.number()); });
  // EINVAL: a file system whose directories know no fsync; names are as durable there as they get.
  if (result != 0 && errno != EINVAL) fail_call(fail_as, directory, "fsync", errno);
}

void create_directories_durably(const fs::path& directory, FailAs fail_as) {
  fs::path path = directory.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "a/b/" -> "a/b"
  std::vector<fs::path> missing;
  for (; !path.empty(); path = path.parent_path()) {
    struct stat info;
    if (::stat(path.c_str(), &info) == 0) {
      if (S_ISDIR(info.st_mode)) break;
      fail_call(fail_as, path, "mkdir", ENOTDIR);
    }
    if (errno != ENOENT) fail_call(fail_as, path, "stat", errno);
    missing.push_back(path);
  }
  for (auto next = missing.rbegin(); next != missing.rend(); ++next) {
    if (::mkdir(next->c_str(), 0777) != 0) {
      const int error = errno;
      // Another rank may have been first; a file of that name or a dangling link is still an error.
      if (error != EEXIST || !names_directory(*next)) fail_call(fail_as, *next, "mkdir", error);
    }
    fsync_directory(parent_of(*next), fail_as);
  }
}

void rename_durably(const fs::path& from, const fs::path& to, FailAs fail_as) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int error = errno;
    fail_call(fail_as, from, cat("rename to ", to.string()), error);
  }
  fsync_directory(parent_of(to), fail_as);
  if (parent_of(from) != parent_of(to)) fsync_directory(parent_of(from), fail_as);
}

std::string read_file(const fs::path& path, int64_t limit_bytes, FailAs fail_as) {
  // O_NONBLOCK: opening a FIFO must give the error below, not wait for a writer.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK, fail_as);
  const struct stat info = file.status();
  require_regular(info, path, fail_as);
  std::string text;
  // Read to the end, not to st_size: the file may grow, and some file systems say 0.
  const auto limit = static_cast<size_t>(limit_bytes);
  size_t filled = 0;
  while (true) {
    if (filled == text.size()) {
      const auto expected = static_cast<size_t>(std::max<int64_t>(info.st_size, 0)) + 1;
      text.resize(std::min(std::max({expected, 2 * text.size(), size_t{4096}}), limit + 1));
    }
    const size_t count = file.read_some(text.data() + filled, text.size() - filled);
    if (count == 0) break;
    filled += count;
    if (filled > limit) {
      throw_as(fail_as, problem(cat("the file is larger than ", human_bytes(limit_bytes)))
                            .at(path.string())
                            .must("be no larger than that, as it is read whole"));
    }
  }
  text.resize(filled);
  return text;
}

int64_t free_space_bytes(const fs::path& path, FailAs fail_as) {
  struct statvfs info;
  const int result = until_not_interrupted([&] { return ::statvfs(path.c_str(), &info); });
  if (result != 0) fail_call(fail_as, path, "statvfs", errno);
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

MappedFile::MappedFile(const fs::path& path, FailAs fail_as) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK, fail_as);
  const struct stat info = file.status();
  require_regular(info, path, fail_as);
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;  // mmap refuses a length of 0
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.number(), 0);
  if (address == MAP_FAILED) fail_call(fail_as, path, "mmap", errno);
  data_ = static_cast<const std::byte*>(address);
  add_mapped_range(data_, size_, path.c_str(), exit_code_of(fail_as));
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  remove_mapped_range(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

std::string this_process() { return cat("process ", ::getpid(), " on host ", host_name()); }

FileLock::FileLock(const fs::path& path) {
  constexpr FailAs kKind = FailAs::run_dir_error;
  Descriptor file(path, O_RDWR | O_CREAT, kKind);
  const int result =
      until_not_interrupted([&] { return ::flock(file.number(), LOCK_EX | LOCK_NB); });
  if (result != 0 && errno == EWOULDBLOCK) {
    // The holder writes "process P on host H" just after locking; empty means it has only begun.
    std::string holder(512, '\0');
    holder.resize(file.read_some(holder.data(), holder.size()));
    while (!holder.empty() && holder.back() == '\n') holder.pop_back();
    if (holder.empty()) holder = "another process";
    throw ConfigError(problem(cat("run_dir ", parent_of(path).string(), " is in use by ", holder))
                          .at(path.string())
                          .remedy("Two runs in one folder would damage each other: choose another "
                                  "run_dir or end that run."));
  }
  if (result != 0) {
    // Network and user-space file systems without locks say one of these.
    if (errno != ENOLCK && errno != ENOSYS && errno != EOPNOTSUPP && errno != EINVAL)
      fail_call(kKind, path, "flock", errno);
    not_supported_ = std::generic_category().message(errno);
  }
  if (until_not_interrupted([&] { return ::ftruncate(file.number(), 0); }) != 0)
    fail_call(kKind, path, "ftruncate", errno);
  const std::string text = this_process() + "\n";
  file.write_all(text.data(), text.size());
  descriptor_ = file.release();
}

// The file stays: removing it would let a third process lock a new file while a second still waits
// on this one.
FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace tptrain
