// Asked to stop at any moment, by any of the signals, a run leaves with 75 and what it had done
// saved, or with nothing to save; the next start goes on.
#include <signal.h>

#include <algorithm>
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
};

/// Waits until mpirun and that many ranks would survive the signal: before that it ends them,
/// whatever the program does.
bool wait_for_hearing(const Process& process, const EndlessJob& job, size_t count, int signal) {
  return wait_until(process, [&] {
    const std::map<int, int> ranks = ranks_with(job.marker());
    return ranks.size() == count && hears(process.pid(), signal) &&
           std::all_of(ranks.begin(), ranks.end(),
                       [&](const auto& rank) { return hears(rank.second, signal); });
  });
}

/// Whether a file below the folder has bytes.
bool holds_bytes(const fs::path& folder) {
  std::error_code changing;
  for (fs::recursive_directory_iterator at(folder, changing), end; !changing && at != end;
       at.increment(changing)) {
    if (at->is_regular_file(changing) && at->file_size(changing) > 0 && !changing) return true;
  }
  return false;
}

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
  for (const int delay_ms : {0, 120, 400}) {
    INFO(delay_ms << " ms after the ranks could hear it");
    const auto command =
        job.command(4, {"--config", job.marker(), "--set", "logging.every_steps=1000"});
    auto process = std::make_unique<Process>(command, job.directory());
    if (!wait_for_hearing(*process, job, 4, SIGUSR1)) {
      // A launcher that ended before a rank was there has not started the program: once more.
      WARN(process->wait().output);
      process = std::make_unique<Process>(command, job.directory());
      REQUIRE(wait_for_hearing(*process, job, 4, SIGUSR1));
    }
    std::this_thread::sleep_for(milliseconds(delay_ms));
    // Again where mpirun, which is starting its ranks, has lost it: as `tptrain launch` does.
    std::chrono::steady_clock::time_point asked;
    wait_until(*process, [&] {
      if (std::chrono::steady_clock::now() - asked < seconds(5)) return false;
      process->signal(SIGUSR1);
      asked = std::chrono::steady_clock::now();
      return false;
    });
    check_stopped(process->wait(), "stopped on request (");
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
    REQUIRE(wait_for_step(process, job.run_dir(), last + 3));
    process.signal(number);
    check_stopped(process.wait(),
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
  REQUIRE(wait_for_step(process, job.run_dir(), 3));
  const std::map<int, int> ranks = ranks_with(job.marker());
  REQUIRE(ranks.size() == 4);
  process.signal(SIGUSR1);
  // As a launcher does to the others when the first rank has left.
  wait_until(process, [&] {
    for (const auto& [rank, pid] : ranks) kill(pid, SIGTERM);
    return ranks_with(job.marker()).empty();
  });
  check_stopped(process.wait(), "stopped on request (");
}

TEST_CASE("a stop that only one rank hears of ends the reading of the text on rank 0", "[e2e]") {
  EndlessJob job;
  std::string text;
  for (int i = 0; text.size() < (size_t{300} << 20); ++i)
    text += cat("Sentence ", i, " says that ", i * 7, " is seven times ", i, ".\n");
  write_text(job.directory() / "text/train.txt", text);
  Process process(job.command(4, {"--config", job.marker()}), job.directory());
  // The first of what is made of it: all of it takes seconds.
  REQUIRE(wait_until(process, [&] { return holds_bytes(job.run_dir() / "data"); }));
  std::map<int, int> ranks = ranks_with(job.marker());
  REQUIRE(ranks.size() == 4);
  kill(ranks[2], SIGUSR1);
  const auto asked = std::chrono::steady_clock::now();
  check_stopped(process.wait(), "before the first step, tokenizing");
  CHECK(std::chrono::steady_clock::now() - asked <
        within(seconds(5)));  // 2 s, and mpirun's own end
  CHECK_FALSE(fs::exists(job.run_dir() / "checkpoints"));
}

}  // namespace tptrain::testing
