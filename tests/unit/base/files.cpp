#include "base/files.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "base/chunk_hash.h"
#include "base/error.h"
#include "base/text.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain {
namespace {

namespace fs = std::filesystem;
using testing::contents_of;
using testing::has;
using testing::message_of;
using testing::TempDir;

// FIPS 180-2, appendix B.
const std::string kHashOfAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const std::string kHashOfNothing =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Files of this process end at `bytes` while it lives: a write beyond fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit lowered = old_;
    lowered.rlim_cur = bytes;
    if (::setrlimit(RLIMIT_FSIZE, &lowered) != 0) throw std::runtime_error("setrlimit failed");
  }
  ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &old_); }

 private:
  rlimit old_;
};

int entries_in(const fs::path& directory) {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(directory)) ++count;
  return count;
}

TEST_CASE("SHA-256 of text, pieces and files") {
  CHECK(sha256_hex("abc") == kHashOfAbc);
  CHECK(sha256_hex("") == kHashOfNothing);
  Sha256 hash;
  hash.update("a");
  hash.update("bc");
  CHECK(hash.hex() == kHashOfAbc);
  const TempDir dir;
  CHECK(sha256_file(dir.put("abc", "abc")) == kHashOfAbc);
  CHECK(sha256_file(dir.put("empty", "")) == kHashOfNothing);
  const std::string large(3'000'001, 'x');  // more than two pieces
  CHECK(sha256_file(dir.put("large", large)) == sha256_hex(large));
}

TEST_CASE("a failed call names path, call, reason and remedy, as the kind asked for") {
  const TempDir dir;
  const std::string path = (dir / "missing").string();
  CHECK(message_of<CheckpointError>([&] { sha256_file(path); }) ==
        "checkpoint error: " + path +
            ": open failed: No such file or directory.\n"
            "  Check the path; a relative one starts at the current directory.");
  CHECK(has(message_of<DataError>([&] { sha256_file(path, FailAs::data_error); }), "data error: "));
  CHECK(has(message_of<ConfigError>([&] { sha256_file(path, FailAs::config_error); }),
            "config error: "));
  CHECK(has(message_of<DataError>([&] { read_file(path); }), "open failed: No such file"));
  CHECK(has(message_of<DataError>([&] { MappedFile{path}; }), "open failed: No such file"));
  CHECK(has(message_of<CheckpointError>([&] { free_space_bytes(path); }), "statvfs failed"));
  CHECK(has(message_of<CheckpointError>([&] { fsync_directory(path); }), "open failed"));
  CHECK(has(message_of<CheckpointError>([&] { sha256_file(dir.path()); }),
            "read failed: Is a directory"));
}

TEST_CASE("a durable file holds what was written and says its size and hash") {
  const TempDir dir;
  DurableFile file(dir / "f");
  std::string expected;
  // Pieces below, at and above the buffer's 256 KiB.
  for (const size_t count : {1u, 100'000u, 200'000u, 262'144u, 0u, 700'000u, 3u}) {
    const std::string piece(count, static_cast<char>('a' + count % 26));
    file.write(piece);
    expected += piece;
  }
  const DurableFile::Written written = file.commit();
  CHECK(contents_of(dir / "f") == expected);
  CHECK(written.size_bytes == static_cast<int64_t>(expected.size()));
  CHECK(written.sha256 == sha256_hex(expected));
  CHECK(has(message_of<InternalError>([&] { file.write("x"); }), "after commit"));
  CHECK(has(message_of<InternalError>([&] { file.commit(); }), "twice"));
}

TEST_CASE("a durable file never overwrites") {
  const TempDir dir;
  const std::string path = dir.put("f", "old").string();
  CHECK(message_of<CheckpointError>([&] { DurableFile{path}; }) ==
        "checkpoint error: " + path +
            ": open failed: File exists.\n"
            "  Files are never overwritten: remove or rename what stands there.");
  CHECK(contents_of(path) == "old");
}

TEST_CASE("a write that fails is an error, and the file is spent") {
  const TempDir dir;
  const FileSizeLimit limit(1 << 20);
  const std::string too_much((1 << 20) + 1, 'x');
  {
    DurableFile file(dir / "at once");
    CHECK(has(message_of<CheckpointError>([&] { file.write(too_much); }),
              "at once: write failed: File too large"));
  }
  DurableFile buffered(dir / "buffered");
  buffered.write(std::string((1 << 20) - 10, 'x'));
  buffered.write("more than ten characters");  // stays in the buffer
  CHECK(has(message_of<CheckpointError>([&] { buffered.commit(); }), "write failed"));
  CHECK(has(message_of<InternalError>([&] { buffered.commit(); }), "twice"));
}

TEST_CASE("an atomic write replaces the whole file or leaves the old one, and no temporary") {
  const TempDir dir;
  write_file_atomically(dir / "f", "one");
  CHECK(contents_of(dir / "f") == "one");
  write_file_atomically(dir / "f", "two");
  CHECK(contents_of(dir / "f") == "two");
  {
    const FileSizeLimit limit(1000);
    CHECK(has(message_of<DataError>([&] {
                write_file_atomically(dir / "f", std::string(2000, 'x'), FailAs::data_error);
              }),
              "write failed: File too large"));
  }
  CHECK(contents_of(dir / "f") == "two");
  CHECK(entries_in(dir.path()) == 1);
}

TEST_CASE("directories are made with their parents; what stands in the way is named") {
  const TempDir dir;
  create_directories_durably(dir / "a/b/c/");
  CHECK(fs::is_directory(dir / "a/b/c"));
  create_directories_durably(dir / "a/b/c");
  create_directories_durably(dir / "a/./b/../d");
  CHECK(fs::is_directory(dir / "a/d"));
  const std::string file = dir.put("file", "").string();
  CHECK(message_of<ConfigError>([&] {
          create_directories_durably(file + "/sub", FailAs::config_error);
        }) == "config error: " + file + "/sub: stat failed: Not a directory.");
  CHECK(has(message_of<CheckpointError>([&] { create_directories_durably(file); }),
            "file: mkdir failed: Not a directory"));
  fs::create_symlink("nowhere", dir / "dangling");
  CHECK(has(message_of<CheckpointError>([&] { create_directories_durably(dir / "dangling"); }),
            "dangling: mkdir failed: File exists"));
}

TEST_CASE("a rename names both paths where it fails") {
  const TempDir dir;
  dir.put("a/f", "x");
  fs::create_directory(dir / "b");
  rename_durably(dir / "a/f", dir / "b/g");
  CHECK(contents_of(dir / "b/g") == "x");
  CHECK_FALSE(fs::exists(dir / "a/f"));
  const std::string message =
      message_of<CheckpointError>([&] { rename_durably(dir / "a/f", dir / "b/h"); });
  CHECK(has(message, (dir / "a/f").string() + ": rename to " + (dir / "b/h").string() +
                         " failed: No such file or directory"));
}

TEST_CASE("reading a whole file: bytes as they are, within the limit") {
  const TempDir dir;
  const std::string bytes("\0\xff\r\n x", 6);
  CHECK(read_file(dir.put("f", bytes)) == bytes);
  CHECK(read_file(dir.put("empty", "")) == "");
  const std::string large(1'000'000, 'y');
  CHECK(read_file(dir.put("large", large)) == large);
  CHECK_FALSE(read_file("/proc/self/status").empty());  // its size is said to be 0
  dir.put("ten", "0123456789");
  CHECK(read_file(dir / "ten", 10) == "0123456789");
  CHECK(has(message_of<DataError>([&] { read_file(dir / "ten", 9); }),
            "ten: the file is larger than 9 B: it must be no larger than that"));
}

TEST_CASE("a directory or a pipe is not read as a file, and does not hang") {
  const TempDir dir;
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK(has(message_of<DataError>([&] { read_file(dir / "pipe"); }),
            "pipe: this is a special file: it must be a regular file"));
  CHECK(has(message_of<DataError>([&] { MappedFile{dir.path()}; }), "this is a directory"));
}

TEST_CASE("a map shows the file, moves, and is empty for an empty file") {
  const TempDir dir;
  MappedFile first(dir.put("f", "hello"));
  MappedFile second(dir.put("empty", ""));
  CHECK(second.bytes().empty());
  second = std::move(first);
  REQUIRE(second.bytes().size() == 5);
  CHECK(std::memcmp(second.bytes().data(), "hello", 5) == 0);
  const MappedFile third(std::move(second));
  CHECK(third.bytes().size() == 5);
}

TEST_CASE("the hash by chunks is one root, whatever pieces the bytes come in") {
  const TempDir dir;
  std::string bytes(static_cast<size_t>(kHashChunkBytes) + 12345, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  const auto digest = [](std::string_view part) {
    Sha256 hash;
    hash.update(part);
    return hash.digest();
  };
  const std::string_view all = bytes;
  const auto chunk = static_cast<size_t>(kHashChunkBytes);
  const std::string expected = sha256_hex(digest(all.substr(0, chunk)) + digest(all.substr(chunk)));
  DurableFile file(dir / "a", FailAs::checkpoint_error, FileHash::chunks);
  for (size_t at = 0, size = 1; at < bytes.size(); at += size, size = size * 3 + 1)
    file.write(all.substr(at, size));
  const DurableFile::Written written = file.commit();
  CHECK(written.size_bytes == static_cast<int64_t>(bytes.size()));
  CHECK(written.sha256 == expected);
  CHECK(chunked_sha256_file(dir / "a") == expected);
  CHECK(sha256_file(dir / "a") == sha256_hex(bytes));
  dir.put("empty", "");
  CHECK(chunked_sha256_file(dir / "empty") == sha256_hex(""));
  CHECK(ChunkHasher().digests().empty());
  CHECK(chunk_root({}) == sha256_hex(""));
}

TEST_CASE("free space is that of the file system") {
  const TempDir dir;
  CHECK(free_space_bytes(dir.path()) > 0);
}

TEST_CASE(
    "a lock held by another process is refused by its process id and host, and ends with it") {
  const TempDir dir;
  const fs::path path = dir / ".lock";
  dir.put(".lock",
          "process 1 on host gone-long-ago, with a long line that must not show through\n");
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const FileLock lock(path);
    char byte = 'x';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    while (true) ::pause();
  }
  char byte;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const std::string message = message_of<ConfigError>([&] { FileLock{path}; });
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  CHECK(message ==
        cat("config error: ", path.string(), ": run_dir ", dir.path().string(),
            " is in use by process ", child, " on host ", host,
            ".\n  Two runs in one folder would damage each other: choose another run_dir or "
            "end that run."));
  const FileLock mine(path);
  CHECK(contents_of(path) == cat("process ", ::getpid(), " on host ", host, "\n"));
}

TEST_CASE("a lock ends with its scope; a second one in the same process is refused") {
  const TempDir dir;
  {
    const FileLock lock(dir / ".lock");
    CHECK(has(message_of<ConfigError>([&] { FileLock{dir / ".lock"}; }), "is in use by process"));
  }
  const FileLock again(dir / ".lock");
  CHECK(has(message_of<ConfigError>([&] { FileLock{dir / "missing/.lock"}; }), "open failed"));
}

}  // namespace
}  // namespace tptrain
