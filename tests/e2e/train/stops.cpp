// Asked to stop at any moment, by any of the signals, a run leaves with 75 and what it had done
// saved, or with nothing to save; the next start goes on.
#include <signal.h>

#include <cstring>
#include <memory>
#include <thread>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A run that does not end by itself.
class EndlessJob : public Job {
 public:
  EndlessJob() {
    edit("max_steps: 8", "max_steps: 1000000");
    edit("save_steps: 3", "save_steps: 0");
    edit("eval: {every_steps: 4}", "eval: {every_steps: 0}");
  }
  std::string marker() const { return config().string(); }

  /// Waits until that many ranks are there as processes, up to 30 s.
  std::vector<int> ranks_of(const Process& process, size_t number) const {
    std::vector<int> ranks;
    for (int i = 0; i < 3000 && ranks.size() != number; ++i) {
      std::this_thread::sleep_for(milliseconds(10));
      ranks.clear();
      for (const int pid : processes_with(marker())) {
        if (pid != process.pid()) ranks.push_back(pid);
      }
    }
    return ranks;
  }
};

void check_stopped(const ProcessResult& result, const std::string& text) {
  INFO(result.output);
  CHECK(result.exit_code == 75);
  CHECK_FALSE(result.timed_out);
  CHECK(result.output.find(text) != std::string::npos);
}

}  // namespace

TEST_CASE("asked to stop in its start-up, a run leaves with 75 and nothing to save", "[e2e]") {
  EndlessJob job;
  // From the moment the ranks are there: before main, in MPI_Init, in what comes after it.
  for (const int delay_ms : {20, 120, 400}) {
    INFO(delay_ms << " ms after the ranks appeared");
    const auto command =
        job.command(4, {"--config", job.marker(), "--set", "logging.every_steps=1000"});
    auto process = std::make_unique<Process>(command, job.directory());
    if (job.ranks_of(*process, 4).empty()) {
      // A launcher that ended before a rank was there has not started the program: once more.
      WARN(process->wait(seconds(10)).output);
      process = std::make_unique<Process>(command, job.directory());
    }
    REQUIRE(job.ranks_of(*process, 4).size() == 4);
    std::this_thread::sleep_for(milliseconds(delay_ms));
    process->signal(SIGUSR1);
    check_stopped(process->wait(seconds(60)), "stopped on request (");
    REQUIRE(all_gone(job.marker()));
  }
}

TEST_CASE("each signal stops a run without mpirun, and the state is saved", "[e2e]") {
  EndlessJob job;
  int64_t last = 0;
  for (const int number : {SIGINT, SIGUSR2, SIGHUP, SIGTERM}) {
    INFO(strsignal(number));
    Process process({TPTRAIN_BINARY, "--config", job.marker(), "--set", "parallel.tp_size=1",
                     "--set", "parallel.dp_size=1"},
                    job.directory());
    REQUIRE(wait_for_step(job.run_dir(), last + 3));
    process.signal(number);
    check_stopped(process.wait(seconds(60)),
                  cat("stopped on request (SIG", sigabbrev_np(number), ") at step "));
    const auto done = static_cast<int64_t>(metric_lines(job.run_dir()).size());
    CHECK(fs::exists(checkpoint_at(job.run_dir(), done)));
    CHECK(done > last);
    last = done;
  }
}

TEST_CASE("SIGTERM does not kill a rank that is on its way out", "[e2e]") {
  EndlessJob job;
  Process process(job.command(4, {"--config", job.marker()}), job.directory());
  REQUIRE(wait_for_step(job.run_dir(), 3));
  const std::vector<int> ranks = job.ranks_of(process, 4);
  REQUIRE(ranks.size() == 4);
  process.signal(SIGUSR1);
  // As a launcher does to the others when the first rank has left.
  for (int i = 0; i < 400 && !processes_with(job.marker()).empty(); ++i) {
    for (const int rank : ranks) kill(rank, SIGTERM);
    std::this_thread::sleep_for(milliseconds(5));
  }
  check_stopped(process.wait(seconds(60)), "stopped on request (");
}

TEST_CASE("a stop that only one rank hears of ends the reading of the text on rank 0", "[e2e]") {
  EndlessJob job;
  std::string text;
  for (int i = 0; text.size() < (size_t{300} << 20); ++i)
    text += cat("Sentence ", i, " says that ", i * 7, " is seven times ", i, ".\n");
  write_text(job.directory() / "text/train.txt", text);
  Process process(job.command(4, {"--config", job.marker()}), job.directory());
  REQUIRE(wait_for(job.run_dir() / "data"));
  std::this_thread::sleep_for(milliseconds(200));
  for (const int rank : job.ranks_of(process, 4)) {
    if (read_text(cat("/proc/", rank, "/environ")).find("OMPI_COMM_WORLD_RANK=2") ==
        std::string::npos)
      continue;
    kill(rank, SIGUSR1);
  }
  const auto asked = std::chrono::steady_clock::now();
  check_stopped(process.wait(seconds(60)), "before the first step, tokenizing");
  CHECK(std::chrono::steady_clock::now() - asked < seconds(5));  // 2 s, and mpirun's own end
  CHECK_FALSE(fs::exists(job.run_dir() / "checkpoints"));
}

}  // namespace tptrain::testing
