#include "base/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <regex>

#include "base/error.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain {
namespace {

using testing::contents_of;
using testing::has;
using testing::message_of;
using testing::TempDir;

/// Sends one of this process's streams to a file while it lives.
class Redirect {
 public:
  Redirect(int stream, const std::filesystem::path& path) : stream_(stream), saved_(::dup(stream)) {
    std::fflush(nullptr);
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(file, stream);
    ::close(file);
  }
  ~Redirect() {
    std::fflush(nullptr);
    ::dup2(saved_, stream_);
    ::close(saved_);
  }

 private:
  int stream_;
  int saved_;
};

struct Output {
  std::string out;
  std::string err;
};

Output output_of(const LogOptions& options) {
  const TempDir dir;
  {
    const Redirect out(STDOUT_FILENO, dir / "out");
    const Redirect err(STDERR_FILENO, dir / "err");
    Logger log(options);
    log.info("loss {} 100%d");  // a message is never a format
    log.warn("careful");
    log.error("config error: x");
    log.flush();
  }
  return {contents_of(dir / "out"), contents_of(dir / "err")};
}

std::string without_times(const std::string& text) {
  return std::regex_replace(text, std::regex("(\\d\\d-\\d\\d )?\\d\\d:\\d\\d:\\d\\d"), "T");
}

const std::string kAll = "T loss {} 100%d\nT WARNING: careful\nT ERROR: config error: x\n";

TEST_CASE("rank 0 prints everything, with the time, to standard output") {
  const Output output = output_of({});
  CHECK(without_times(output.out) == kAll);
  CHECK(output.err.empty());
}

TEST_CASE("the other ranks print warnings and errors only, with their rank") {
  const Output output = output_of({.rank = 3});
  CHECK(output.out.empty());
  CHECK(without_times(output.err) ==
        "T [rank 3] WARNING: careful\nT [rank 3] ERROR: config error: x\n");
}

TEST_CASE("rank 0 appends to the file with day and time; other ranks leave it alone") {
  const TempDir dir;
  const std::string path = dir.put("log.txt", "before\n").string();
  const Output output = output_of({.console = false, .file = path});
  CHECK(output.out.empty());
  const std::string text = contents_of(path);
  CHECK(std::regex_search(text, std::regex("^before\n\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d loss")));
  CHECK(without_times(text) == "before\n" + kAll);
  output_of({.rank = 1, .console = false, .file = path});
  CHECK(contents_of(path) == text);
}

TEST_CASE("a note stands in the file alone") {
  const TempDir dir;
  const std::string path = (dir / "log.txt").string();
  {
    const Redirect out(STDOUT_FILENO, dir / "out");
    Logger log({.file = path});
    log.note("evaluating: 3 of 12");
    log.info("done");
    Logger({.rank = 1, .file = path}).note("not of this rank");
  }
  CHECK(without_times(contents_of(path)) == "T evaluating: 3 of 12\nT done\n");
  CHECK(without_times(contents_of(dir / "out")) == "T done\n");
}

TEST_CASE("a line is in the file as soon as it is logged") {
  const TempDir dir;
  Logger log({.console = false, .file = (dir / "log.txt").string()});
  log.info("here");
  CHECK(has(contents_of(dir / "log.txt"), "here\n"));
}

TEST_CASE("a log file that cannot be opened is an error that names it") {
  const TempDir dir;
  const std::string message =
      message_of<ConfigError>([&] { Logger({.console = false, .file = dir.path().string()}); });
  CHECK(has(message, "config error: " + dir.path().string() + ": the log cannot be opened ("));
  CHECK(has(message, "Check that run_dir is a folder this user may write to."));
}

TEST_CASE("a FIFO is refused as a log: opening it would wait for a reader") {
  const TempDir dir;
  REQUIRE(::mkfifo((dir / "log.txt").c_str(), 0600) == 0);
  const std::string message = message_of<ConfigError>(
      [&] { Logger({.console = false, .file = (dir / "log.txt").string()}); });
  CHECK(has(message, "log.txt: there is a FIFO of this name: it must be a regular file"));
}

TEST_CASE("a log that cannot be written is said once, counted, and ends nothing") {
  const TempDir dir;
  std::string failures;
  {
    const Redirect err(STDERR_FILENO, dir / "err");
    Logger log({.console = false, .file = "/dev/full"});
    CHECK(log.failures().empty());
    for (int i = 0; i < 5; ++i) log.info("lost");
    failures = log.failures();
  }
  const std::string said = contents_of(dir / "err");
  CHECK(has(said, "WARNING: the log could not be written ("));
  CHECK(said.find("WARNING") == said.rfind("WARNING"));
  CHECK(has(failures, "/dev/full: the log could not be written "));
  CHECK(has(failures, " times ("));
}

}  // namespace
}  // namespace tptrain
