// One rank that fails ends the whole job: soon, with the root cause named, with its exit code, and
// with no process left behind.
#include <signal.h>

#include <thread>

#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
TEST_CASE("one rank that throws ends the job within 5 s, with the cause and no orphan", "[e2e]") {
  const ProcessResult result =
      run_process({TPTRAIN_MPIRUN, "--oversubscribe", "-n", "4", TPTRAIN_FAILING_BINARY});
  INFO(result.output);
  CHECK(result.output.find("[rank 2] data error: step 57: the text of rank 2 is spoilt") !=
        std::string::npos);
  CHECK(result.exit_code == 3);
  CHECK_FALSE(result.timed_out);
  // 5 s after it throws; starting four ranks comes before.
  CHECK(result.seconds < static_cast<double>(within(std::chrono::seconds(5)).count()));
  CHECK(all_gone(TPTRAIN_FAILING_BINARY));
}

TEST_CASE("one rank that is killed ends the job, and the next start goes on", "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 1000000");
  job.edit("save_steps: 3", "save_steps: 20");
  const std::string marker = (job.directory() / "run.yaml").string();
  Process process(job.command(4, {"--config", marker}), job.directory());
  REQUIRE(wait_for(process, checkpoint_at(job.run_dir(), 20)));
  std::map<int, int> ranks = ranks_with(marker);
  REQUIRE(ranks.size() == 4);
  kill(ranks[1], SIGKILL);
  const auto begin = std::chrono::steady_clock::now();
  const ProcessResult result = process.wait();
  INFO(result.output);
  CHECK(result.exit_code != 0);
  CHECK(std::chrono::steady_clock::now() - begin < within(std::chrono::seconds(5)));
  CHECK(all_gone(marker));
  const ProcessResult resumed = job.run(4, {"--set", "train.max_steps=25", "--set",
                                            "checkpoint.resume=run/checkpoints/step-00000020"});
  INFO(resumed.output);
  CHECK(resumed.exit_code == 0);
}

}  // namespace tptrain::testing
