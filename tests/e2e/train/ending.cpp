// What ends a run before train.max_steps, and what it leaves for the next start.
#include <ctime>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

class EndlessJob : public Job {
 public:
  EndlessJob() {
    edit("max_steps: 8", "max_steps: 1000000");
    edit("save_steps: 3", "save_steps: 0");
    edit("every_steps: 4", "every_steps: 100000");
  }
};

void check_stopped_in_time(const Job& job, const ProcessResult& result, const std::string& reason) {
  INFO(result.output);
  CHECK(result.exit_code == 75);
  CHECK(has(result.output, "stopping: " + reason + " is near"));
  const size_t done = metric_lines(job.run_dir()).size();
  CHECK(done > 0);
  CHECK(fs::exists(checkpoint_at(job.run_dir(), static_cast<int64_t>(done)) / "manifest.json"));
}

}  // namespace

TEST_CASE("train.max_time ends a start with its state saved", "[e2e]") {
  const EndlessJob job;
  check_stopped_in_time(job, job.run(4, {"--set", "train.max_time=4s"}), "train.max_time");
  // The next start has its own time, and does a step at least.
  const size_t done = metric_lines(job.run_dir()).size();
  const ProcessResult again = job.run(4, {"--set", "train.max_time=0.001s"});
  check_stopped_in_time(job, again, "train.max_time");
  CHECK(metric_lines(job.run_dir()).size() > done);
}

TEST_CASE("the end of a Slurm job is known, whatever signal the scheduler sends", "[e2e]") {
  const EndlessJob job;
  std::vector<std::string> command = job.command(4, {"--config", "run.yaml"});
  const std::string end = std::to_string(std::time(nullptr) + 14);
  command.insert(command.begin(), {"env", "SLURM_JOB_END_TIME=" + end});
  const ProcessResult result = run_process(command, job.directory());
  check_stopped_in_time(job, result, "the end of the Slurm job");
}

TEST_CASE("evaluations that do not get better end a run, also over restarts", "[e2e]") {
  Job job;
  job.edit("learning_rate: 3e-3", "learning_rate: 1e-30");  // fp32 weights do not move
  job.edit("every_steps: 4", "every_steps: 1, patience: 2");
  const ProcessResult result = job.run();
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK(has(result.output, "eval_loss has not got lower for 2 evaluations (eval.patience)"));
  CHECK(metric_lines(job.run_dir()).size() == 2);  // the evaluation at step 0 is the best
  CHECK(fs::exists(checkpoint_at(job.run_dir(), 2) / "manifest.json"));
  // Started again it stays ended; with more patience it goes on by what was left.
  CHECK(job.run().exit_code == 0);
  CHECK(metric_lines(job.run_dir()).size() == 2);
  CHECK(job.run(4, {"--set", "eval.patience=5"}).exit_code == 0);
  CHECK(metric_lines(job.run_dir()).size() == 5);
  // Each start's settings stay.
  CHECK(has(read_text(job.run_dir() / "resolved_config.0.yaml"), "patience: 2"));
  CHECK(has(read_text(job.run_dir() / "resolved_config.2.2.yaml"), "patience: 5"));
}

TEST_CASE("the last step is recorded whatever logging.every_steps says", "[e2e]") {
  const Job job;
  const ProcessResult result =
      job.run(1, {"--set", "logging.every_steps=3", "--set", "parallel={tp_size: 1, dp_size: 1}"});
  INFO(result.output);
  CHECK(result.exit_code == 0);
  const std::vector<std::string> lines = metric_lines(job.run_dir());
  REQUIRE(lines.size() == 3);  // of steps 3, 6 and 8
  CHECK(lines.back().starts_with("8 "));
  CHECK(has(result.output, "step 8/8"));
}

TEST_CASE("an exit handler that hangs keeps no rank, and the exit code stays", "[e2e]") {
  Job job;
  // A run that is done, and one that fails: either leaves by its own way.
  for (const auto& [sets, code] : {std::pair{"train.max_steps=2", 0}, {"train.max_steps=-1", 2}}) {
    std::vector<std::string> command = job.command(
        2, {"--config", "run.yaml", "--set", sets, "--set", "parallel={tp_size: 1, dp_size: 2}"});
    command.insert(command.begin() + 1,
                   {"-x", cat("LD_PRELOAD=", TPTRAIN_RANK_FAULTS), "-x", "RANK_FAULTS_AT_EXIT=1"});
    const ProcessResult result = run_process(command, job.directory());
    INFO(result.output);
    CHECK_FALSE(result.timed_out);
    CHECK(result.exit_code == code);
  }
  CHECK(has(read_text(job.run_dir() / "log.txt"), "done: step 2 of 2"));
}

}  // namespace tptrain::testing
