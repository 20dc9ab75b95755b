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

TEST_CASE("the end of a Slurm job is known, whatever signal the scheduler sends", "[e2e]") {
  const EndlessJob job;
  std::vector<std::string> command = job.command(4, {"--config", "run.yaml"});
  const std::string end = std::to_string(std::time(nullptr) + 14);
  command.insert(command.begin(), {"env", "SLURM_JOB_END_TIME=" + end});
  const ProcessResult result = run_process(command, std::chrono::seconds(90), job.directory());
  check_stopped_in_time(job, result, "the end of the Slurm job");
}

}  // namespace tptrain::testing
