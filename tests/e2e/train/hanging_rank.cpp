// A rank that hangs ends the job within the watchdog's time, and the others say what they waited
// for; a job that is only slow, or was stopped as a whole, goes on.
#include <signal.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <thread>
#include <utility>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

using std::chrono::seconds;

using Clock = std::chrono::steady_clock;

/// How long the evaluation behind the last step took, by what metrics.jsonl says.
double last_evaluation_s(const fs::path& run_dir) {
  double step_at = 0, evaluated_at = 0;
  std::istringstream lines(read_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.contains("loss")) step_at = row["time"];
    if (row.contains("eval_loss")) evaluated_at = row["time"];
  }
  return evaluated_at - step_at;
}

}  // namespace

TEST_CASE("one rank that hangs ends the job with code 6, naming what the others wait for",
          "[e2e]") {
  const int timeout = hang_timeout_s(3);
  Job job;
  job.edit("max_steps: 8", "max_steps: 100000");
  job.edit("device: cpu", cat("device: cpu\n  hang_timeout_s: ", timeout));
  job.edit("save_steps: 3", "save_steps: 20");
  const std::string marker = (job.directory() / "run.yaml").string();
  Process process(job.command(4, {"--config", marker}), job.directory());
  REQUIRE(wait_for(process, checkpoint_at(job.run_dir(), 20)));
  REQUIRE(wait_for_step(process, job.run_dir(), 22));
  std::map<int, int> ranks = ranks_with(marker);
  REQUIRE(ranks.size() == 4);
  kill(ranks[1], SIGSTOP);
  const auto begin = Clock::now();
  const ProcessResult result = process.wait();
  INFO(result.output);
  CHECK_FALSE(result.timed_out);
  CHECK(result.exit_code == 6);
  // Without progress, then 1.5 s in which the others speak too, and mpirun's own.
  CHECK(Clock::now() - begin < seconds(timeout) + within(seconds(5)));
  const std::string named = cat(": its process ", ranks[1], " is stopped (SIGSTOP)");
  for (const std::string& part :
       {std::string("[rank "), std::string("] communication error: no progress for "),
        std::string(": step "), std::string("last collective \""), std::string("number "),
        std::string("train.hang_timeout_s"), std::string("; behind is rank "), named}) {
    INFO(part);
    CHECK(result.output.find(part) != std::string::npos);
  }
  CHECK(all_gone(marker));

  const ProcessResult resumed = job.run(4, {"--set", "train.max_steps=25", "--set",
                                            "checkpoint.resume=run/checkpoints/step-00000020"});
  INFO(resumed.output);
  CHECK(resumed.exit_code == 0);
}

TEST_CASE("a rank that hangs in its start-up ends the job with code 6 and is named", "[e2e]") {
  const int timeout = hang_timeout_s(4);
  Job job;
  job.edit("device: cpu", cat("device: cpu\n  hang_timeout_s: ", timeout));
  const std::string marker = job.config().string();
  Process process(job.command(3, {"--config", marker, "--set", "parallel.tp_size=1", "--set",
                                  "parallel.dp_size=3", "--set", "train.global_batch_size=3"}),
                  job.directory());
  std::map<int, int> ranks = wait_for_ranks(process, marker, 3);
  REQUIRE(ranks.size() == 3);
  kill(ranks[0], SIGSTOP);  // it loads its libraries, or is in MPI_Init
  const auto begin = Clock::now();
  const ProcessResult result = process.wait();
  INFO(result.output);
  CHECK_FALSE(result.timed_out);
  CHECK(result.exit_code == 6);
  CHECK(Clock::now() - begin < seconds(timeout) + within(seconds(5)));
  CHECK(result.output.find("s: starting MPI, no collective yet") != std::string::npos);
  CHECK(result.output.find(cat(" (process ", ranks[0], ") is stopped (SIGSTOP)")) !=
        std::string::npos);
  CHECK(all_gone(marker));
}

TEST_CASE("evaluate and generate end when one of their ranks hangs", "[e2e]") {
  const std::string timeout = std::to_string(hang_timeout_s(3));
  const Job job;
  REQUIRE(job.run(1, {"--set", "parallel={tp_size: 1, dp_size: 1}"}).exit_code == 0);
  // Two jobs that wait at the same time, told apart by how they spell the folder.
  struct Waiting {
    std::string run_dir;
    std::unique_ptr<Process> process;
  };
  std::vector<Waiting> jobs;
  for (const auto& [way, verb] :
       {std::pair{"/run", std::vector<std::string>{"evaluate", "--data", "text/train.txt",
                                                   "--tp-size", "2"}},
        std::pair{"/./run", std::vector<std::string>{"generate", "--prompt", "Sentence"}}}) {
    const std::string run_dir = job.directory().string() + way;
    std::vector<std::string> arguments = verb;
    arguments.insert(arguments.end(), {"--checkpoint", run_dir, "--hang-timeout", timeout});
    auto process = std::make_unique<Process>(job.command(2, arguments), job.directory());
    std::map<int, int> ranks = wait_for_ranks(*process, run_dir, 2);
    REQUIRE(ranks.size() == 2);
    kill(ranks[1], SIGSTOP);
    jobs.push_back({run_dir, std::move(process)});
  }
  for (const Waiting& waiting : jobs) {
    const ProcessResult result = waiting.process->wait();
    INFO(result.output);
    CHECK_FALSE(result.timed_out);
    CHECK(result.exit_code == 6);
    CHECK(result.output.find("communication error: no progress for ") != std::string::npos);
    CHECK(all_gone(waiting.run_dir));
  }
}

TEST_CASE("a rank that is slower than the others is named", "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 1000000");
  job.edit("save_steps: 3", "save_steps: 0");
  job.edit("eval: {every_steps: 4}", "eval: {every_steps: 0}\nlogging: {audit_steps: 25}");
  const std::string marker = job.config().string();
  Process process(job.command(3, {"--config", marker, "--set", "parallel.tp_size=1", "--set",
                                  "parallel.dp_size=3", "--set", "train.global_batch_size=3"}),
                  job.directory());
  REQUIRE(wait_for_step(process, job.run_dir(), 2));
  const int slow = ranks_with(marker)[2];
  REQUIRE(slow > 0);
  // Most of its time it does not run, as on a core that it shares. On a busy machine others may be
  // named as well, or before it.
  const std::regex named("rank 2 on .* holds the others up: own work takes ");
  std::string log;
  const bool is_named = wait_until(process, [&] {
    kill(slow, SIGSTOP);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    kill(slow, SIGCONT);
    log = read_text(job.run_dir() / "log.txt");
    return std::regex_search(log, named);
  });
  process.signal(SIGUSR1);
  const ProcessResult result = process.wait();
  INFO(result.output);
  CHECK(result.exit_code == 75);
  CHECK(is_named);
  CHECK(log.find("pace of the last ") != std::string::npos);
  CHECK(log.find(" steps, median rank: data ") != std::string::npos);
  CHECK(log.find(" steps, median rank: data -") == std::string::npos);
}

TEST_CASE("a job that was stopped as a whole goes on", "[e2e]") {
  const int timeout = hang_timeout_s(3);
  Job job;
  job.edit("max_steps: 8", "max_steps: 1000000");
  job.edit("save_steps: 3", "save_steps: 1000");
  job.edit("eval: {every_steps: 4}", "eval: {every_steps: 0}");
  job.edit("device: cpu", cat("device: cpu\n  hang_timeout_s: ", timeout));
  const std::string marker = (job.directory() / "run.yaml").string();
  Process process(job.command(2, {"--config", marker, "--set", "parallel.dp_size=1"}),
                  job.directory());
  REQUIRE(wait_for_step(process, job.run_dir(), 3));
  const std::map<int, int> ranks = ranks_with(marker);
  REQUIRE(ranks.size() == 2);
  for (const auto& [rank, pid] : ranks) kill(pid, SIGSTOP);
  std::this_thread::sleep_for(seconds(timeout + 1));
  const size_t done = metric_lines(job.run_dir()).size();
  for (const auto& [rank, pid] : ranks) kill(pid, SIGCONT);
  CHECK(wait_for_step(process, job.run_dir(), static_cast<int64_t>(done) + 3));
  process.signal(SIGUSR1);
  const ProcessResult result = process.wait();
  INFO(result.output);
  CHECK(result.exit_code == 75);
}

TEST_CASE("an evaluation that takes longer than the watchdog's time is left alone", "[e2e]") {
  const int timeout = hang_timeout_s(2);
  // As much text as this machine needs for that: else nothing would be shown.
  double took_s = 0;
  for (int lines = 3000; took_s < 1.5 * timeout;) {
    Job job;
    std::string text;
    for (int i = 0; i < lines; ++i) text += cat("Sentence ", i, " is held out.\n");
    write_text(job.directory() / "text/eval.txt", text);
    job.edit("device: cpu", cat("device: cpu\n  hang_timeout_s: ", timeout));
    job.edit("eval: {every_steps: 4}", "eval: {every_steps: 0, max_batches: 0}");
    const ProcessResult result = job.run(1, {"--set", "parallel={tp_size: 1, dp_size: 1}"});
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    took_s = last_evaluation_s(job.run_dir());
    REQUIRE(took_s > 0);
    lines = std::max(2 * lines, static_cast<int>(lines * 1.8 * timeout / took_s));
    REQUIRE(lines < 10'000'000);
  }
}

}  // namespace tptrain::testing
