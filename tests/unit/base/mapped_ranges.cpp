// A mapped file that is cut while it is in use: the process ends with the file's name and exit
// code.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain {
namespace {

namespace fs = std::filesystem;

struct Ended {
  int exit_code;  // 128 + signal where a signal ended it
  std::string error;
};

Ended run_child(const std::function<void()>& work) {
  const testing::TempDir directory;
  const std::string file = (directory.path() / "stderr").string();
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen(file.c_str(), "w", stderr) == nullptr) _exit(100);
    signal(SIGBUS, SIG_DFL);  // Catch has one of its own
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), text.str()};
}

std::string three_pages(const fs::path& directory) {
  const fs::path path = directory / "tokens.bin";
  std::ofstream(path) << std::string(3 * 4096, 'x');
  return path.string();
}

char read_byte(const MappedFile& file, size_t at) {
  return static_cast<char>(static_cast<const volatile std::byte*>(file.bytes().data())[at]);
}

}  // namespace

TEST_CASE("reading what was cut off says which file it was and ends with its kind's code") {
  const testing::TempDir directory;
  for (const FailAs kind : {FailAs::data_error, FailAs::checkpoint_error}) {
    const std::string path = three_pages(directory.path());
    const Ended ended = run_child([&] {
      const MappedFile gone(path, kind);  // another map of it that is no more
      const MappedFile file(path, kind);
      if (read_byte(file, 2 * 4096) != 'x') _exit(101);
      fs::resize_file(path, 4096);
      if (read_byte(file, 4095) != 'x') _exit(102);
      read_byte(file, 4096 + 17);
    });
    INFO(ended.error);
    const bool data = kind == FailAs::data_error;
    CHECK(ended.exit_code == static_cast<int>(data ? ExitCode::data : ExitCode::checkpoint));
    CHECK(ended.error.starts_with((data ? "data error: " : "checkpoint error: ") + path +
                                  ": byte 4113 of 12288 can no longer be read: "));
  }
}

TEST_CASE("a bus error elsewhere is a bus error") {
  const testing::TempDir directory;
  const std::string path = three_pages(directory.path());
  const Ended ended = run_child([&] {
    { const MappedFile file(path); }
    raise(SIGBUS);
  });
  CHECK(ended.error.empty());
  CHECK(ended.exit_code == 128 + SIGBUS);
}

}  // namespace tptrain
