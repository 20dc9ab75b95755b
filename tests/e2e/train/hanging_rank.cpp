// A rank that hangs ends the job within the watchdog's time, and the others say what they waited
// for; a job that is only slow, or was stopped as a whole, goes on.
#include <signal.h>

#include <memory>
#include <thread>
#include <utility>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

using std::chrono::seconds;

std::vector<int> ranks_of(const Process& job, const std::string& marker) {
  std::vector<int> ranks;
  for (const int pid : processes_with(marker)) {
    if (pid != job.pid()) ranks.push_back(pid);
  }
  return ranks;
}

}  // namespace

TEST_CASE("one rank that hangs ends the job with code 6, naming what the others wait for",
          "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 100000");
  job.edit("device: cpu", "device: cpu\n  hang_timeout_s: 3");
  job.edit("save_steps: 3", "save_steps: 20");
  const std::string marker = (job.directory() / "run.yaml").string();
  Process process(job.command(4, {"--config", marker}), job.directory());
  REQUIRE(wait_for(checkpoint_at(job.run_dir(), 20)));
  REQUIRE(wait_for_step(job.run_dir(), 22));
  const std::vector<int> ranks = ranks_of(process, marker);
  REQUIRE(ranks.size() == 4);
  kill(ranks[1], SIGSTOP);
  const auto begin = std::chrono::steady_clock::now();
  const ProcessResult result = process.wait(seconds(60));
  INFO(result.output);
  CHECK_FALSE(result.timed_out);
  CHECK(result.exit_code == 6);
  // 3 s without progress, 1.5 s in which the others speak too, and mpirun's own.
  CHECK(std::chrono::steady_clock::now() - begin < seconds(12));
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
  Job job;
  job.edit("device: cpu", "device: cpu\n  hang_timeout_s: 4");
  const std::string marker = job.config().string();
  Process process(job.command(3, {"--config", marker, "--set", "parallel.tp_size=1", "--set",
                                  "parallel.dp_size=3", "--set", "train.global_batch_size=3"}),
                  job.directory());
  std::vector<int> ranks;
  for (int i = 0; i < 3000 && ranks.size() != 3; ++i) {
    ranks = ranks_of(process, marker);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  REQUIRE(ranks.size() == 3);
  kill(ranks[0], SIGSTOP);  // it loads its libraries, or is in MPI_Init
  const auto begin = std::chrono::steady_clock::now();
  const ProcessResult result = process.wait(seconds(60));
  INFO(result.output);
  CHECK_FALSE(result.timed_out);
  CHECK(result.exit_code == 6);
  CHECK(std::chrono::steady_clock::now() - begin < seconds(4 + 5));
  CHECK(result.output.find("s: starting MPI, no collective yet") != std::string::npos);
  CHECK(result.output.find(cat(" (process ", ranks[0], ") is stopped (SIGSTOP)")) !=
        std::string::npos);
  CHECK(all_gone(marker));
}

TEST_CASE("evaluate and generate end when one of their ranks hangs", "[e2e]") {
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
    arguments.insert(arguments.end(), {"--checkpoint", run_dir, "--hang-timeout", "3"});
    auto process = std::make_unique<Process>(job.command(2, arguments), job.directory());
    std::vector<int> ranks;
    for (int i = 0; i < 3000 && ranks.size() != 2; ++i) {
      ranks = ranks_of(*process, run_dir);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    REQUIRE(ranks.size() == 2);
    kill(ranks[1], SIGSTOP);
    jobs.push_back({run_dir, std::move(process)});
  }
  for (const Waiting& waiting : jobs) {
    const ProcessResult result = waiting.process->wait(seconds(60));
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
  REQUIRE(wait_for_step(job.run_dir(), 2));
  int slow = 0;
  for (const int pid : ranks_of(process, marker)) {
    const std::string environment = read_text(cat("/proc/", pid, "/environ"));
    if (environment.find("OMPI_COMM_WORLD_RANK=2") != std::string::npos) slow = pid;
  }
  REQUIRE(slow > 0);
  // Most of its time it does not run, as on a core that it shares.
  std::string log;
  for (int i = 0; i < 2000 && log.find("rank 2 on ") == std::string::npos; ++i) {
    kill(slow, SIGSTOP);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    kill(slow, SIGCONT);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    log = read_text(job.run_dir() / "log.txt");
  }
  process.signal(SIGUSR1);
  const ProcessResult result = process.wait(seconds(60));
  INFO(result.output);
  CHECK(result.exit_code == 75);
  CHECK(log.find("holds the others up: own work takes ") != std::string::npos);
  CHECK(log.find("rank 2 on ") < log.find(" holds the others up"));
  CHECK(log.find("pace of the last ") != std::string::npos);
  CHECK(log.find(" steps, median rank: data ") != std::string::npos);
  CHECK(log.find(" steps, median rank: data -") == std::string::npos);
}

TEST_CASE("a job that was stopped as a whole goes on", "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 60");
  job.edit("device: cpu", "device: cpu\n  hang_timeout_s: 3");
  const std::string marker = (job.directory() / "run.yaml").string();
  Process process(job.command(2, {"--config", marker, "--set", "parallel.dp_size=1"}),
                  job.directory());
  REQUIRE(wait_for(checkpoint_at(job.run_dir(), 3)));
  const std::vector<int> ranks = ranks_of(process, marker);
  for (const int rank : ranks) kill(rank, SIGSTOP);
  std::this_thread::sleep_for(seconds(4));
  for (const int rank : ranks) kill(rank, SIGCONT);
  const ProcessResult result = process.wait(seconds(90));
  INFO(result.output);
  CHECK(result.exit_code == 0);
}

TEST_CASE("an evaluation that takes longer than the watchdog's time is left alone", "[e2e]") {
  Job job;
  job.edit("device: cpu", "device: cpu\n  hang_timeout_s: 2");
  job.edit("eval: {every_steps: 4}", "eval: {every_steps: 0, max_batches: 0}");
  // A shorter evaluation would show nothing: the text grows until one takes long enough here.
  double seconds_taken = 0;
  for (int sentences = 16000; seconds_taken <= 4.0; sentences *= 2) {
    REQUIRE(sentences <= 16 * 16000);
    std::string text;
    for (int i = 0; i < sentences; ++i) text += "Sentence " + std::to_string(i) + " is held out.\n";
    write_text(job.directory() / "text/eval.txt", text);
    std::filesystem::remove_all(job.run_dir());
    const ProcessResult result = job.run(1, {"--set", "parallel={tp_size: 1, dp_size: 1}"});
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    seconds_taken = result.seconds;
  }
}

}  // namespace tptrain::testing
