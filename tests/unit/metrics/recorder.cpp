// A sink that fails costs its records, not the training: it is warned of once, and counted.
#include "metrics/recorder.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <thread>

#include "base/error.h"
#include "base/failure_tally.h"
#include "metrics/jsonl_writer.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::metrics {
namespace {

using testing::contents_of;
using testing::has;
using testing::message_of;
using testing::TempDir;

/// Takes what it is given, unless told to fail.
class FakeSink final : public Sink {
 public:
  FakeSink(int& records, const bool& fails) : records_(records), fails_(fails) {}
  std::string name() const override { return "fake"; }
  void step(const StepMetrics&) override { take(); }
  void skipped(const SkippedStep&) override { take(); }
  void eval(const EvalMetrics&) override { take(); }
  void save(const SaveMetrics&) override { take(); }

 private:
  void take() {
    if (fails_) throw DataError(problem("no room"));
    ++records_;
  }
  int& records_;
  const bool& fails_;
};

}  // namespace

TEST_CASE("a failing sink is warned of once, counted, and tried again; the others get everything",
          "[metrics]") {
  std::vector<std::string> warnings;
  Recorder recorder([&](const std::string& line) { warnings.push_back(line); });
  int good = 0, bad = 0;
  const bool never = false;
  bool fails = true;
  recorder.add(std::make_unique<FakeSink>(bad, fails));
  recorder.add(std::make_unique<FakeSink>(good, never));
  recorder.step({.step = 1});
  recorder.skipped({.step = 2});
  recorder.eval({.step = 2});
  fails = false;
  recorder.step({.step = 3});
  CHECK(good == 4);
  CHECK(bad == 1);
  REQUIRE(warnings.size() == 1);
  CHECK(has(warnings[0], "the training goes on"));
  CHECK(recorder.failures() ==
        std::vector<std::string>{
            "fake: 3 records are missing, the last because of data error: no room."});
}

TEST_CASE("a failure is said at first, and then every ten minutes", "[metrics]") {
  FailureTally tally;
  const FailureTally::Time begin{};
  CHECK(tally.note("a", begin));
  CHECK_FALSE(tally.note("b", begin + std::chrono::minutes(9)));
  CHECK(tally.note("c", begin + std::chrono::minutes(10)));
  CHECK_FALSE(tally.note("d", begin + std::chrono::minutes(19)));
  CHECK(tally.count() == 4);
  CHECK(tally.last_reason() == "d");
}

TEST_CASE("a line that did not fit is taken back, so that the next ones can be read", "[metrics]") {
  const TempDir directory;
  const auto path = directory / "metrics.jsonl";
  JsonlWriter writer(path, 0);
  writer.eval({.step = 1, .loss = 1.5, .target_tokens = 10, .time = 0});
  const std::string before = contents_of(path);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const auto former = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{before.size() + 20, old.rlim_max};  // room for a part of the next line
  ::setrlimit(RLIMIT_FSIZE, &limit);
  CHECK(has(message_of<DataError>([&] { writer.eval({.step = 2}); }), "write failed: "));
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, former);
  CHECK(contents_of(path) == before);
  writer.skipped({.step = 3, .reason = "no_targets"});
  CHECK(has(contents_of(path), before + "{\"step\":3,\"skipped\":\"no_targets\""));
}

TEST_CASE("a FIFO is refused: the run would wait at it", "[metrics]") {
  const TempDir directory;
  const auto path = directory / "metrics.jsonl";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  CHECK(has(message_of<ConfigError>([&] { JsonlWriter(path, 0); }),
            "metrics.jsonl: there is a FIFO"));
}

TEST_CASE("the file's permissions follow the umask", "[metrics]") {
  const TempDir directory;
  const mode_t former = ::umask(002);
  JsonlWriter(directory / "metrics.jsonl", 0);
  ::umask(former);
  struct stat info {};
  REQUIRE(::stat((directory / "metrics.jsonl").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0664);
}

}  // namespace tptrain::metrics
