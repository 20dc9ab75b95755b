// Which checkpoints of a run stay beside the newest, their names, and a run that begins with the
// weights of one.
#include <set>
#include <sstream>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

std::set<std::string> checkpoints_of(const fs::path& run_dir) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(run_dir / "checkpoints")) {
    if (entry.is_directory()) names.insert(entry.path().filename());
  }
  return names;
}

double loss_of_step(const fs::path& run_dir, size_t step) {
  return std::stod(metric_lines(run_dir).at(step - 1).substr(2));
}

}  // namespace

TEST_CASE("keep_every and keep_best: what stays, its names, and a run that begins with the best",
          "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 14");
  job.edit("keep: 0", "keep: 1, keep_every: 6, keep_best: eval_loss");
  // Evaluations at 4, 8 and 9 are better than those before, and are saved; then the rate is far too
  // high, and those at 12 and 14 are not.
  job.edit("scheduler: {type: cosine, warmup_steps: 2}", "scheduler: {type: constant}");
  REQUIRE(job.run(4, {"--set", "train.max_steps=9"}).exit_code == 0);
  CHECK(checkpoints_of(job.run_dir()) ==
        std::set<std::string>{"step-00000006", "step-00000008", "step-00000009"});
  const ProcessResult rest = job.run(4, {"--set", "optimizer.learning_rate=1.0"});
  INFO(rest.output);
  REQUIRE(rest.exit_code == 0);
  CHECK(checkpoints_of(job.run_dir()) ==
        std::set<std::string>{"step-00000006", "step-00000009", "step-00000012", "step-00000014"});

  const std::string best = (job.run_dir() / "best").string();
  const std::string shown = job.tool({"inspect", best}).output;
  CHECK(shown.find("checkpoints/step-00000009") != std::string::npos);
  CHECK(shown.find("best  step-00000009") != std::string::npos);
  CHECK(shown.find("last  step-00000014") != std::string::npos);
  CHECK(job.tool({"verify", (job.run_dir() / "last").string()}).output.find("step 14,") !=
        std::string::npos);
  CHECK(job.tool({"generate", "--checkpoint", best, "--prompt", "Sentence"}).exit_code == 0);

  const std::vector<std::string> anew = {"--set", "run_dir=other",
                                         "--set", "checkpoint.init_from=" + best,
                                         "--set", "train.max_steps=3"};
  const ProcessResult begun = job.run(4, anew);
  INFO(begun.output);
  REQUIRE(begun.exit_code == 0);
  CHECK(begun.output.find("start: the weights of ") != std::string::npos);
  const fs::path other = job.directory() / "other";
  CHECK(loss_of_step(other, 1) < loss_of_step(job.run_dir(), 1) - 0.2);
  // What it began with may be gone.
  fs::rename(job.run_dir(), job.directory() / "gone");
  const ProcessResult again = job.run(4, anew);
  INFO(again.output);
  CHECK(again.exit_code == 0);
  CHECK(again.output.find("nothing to train") != std::string::npos);
}

// As after a last save whose checkpoint was committed and could get its name no more.
TEST_CASE("a start that owes nothing but an evaluation removes what is old", "[e2e]") {
  Job job;
  REQUIRE(job.run().exit_code == 0);
  REQUIRE(checkpoints_of(job.run_dir()).size() == 3);  // keep: 0
  const fs::path metrics = job.run_dir() / "metrics.jsonl";
  std::istringstream before(read_text(metrics));
  std::string without;
  for (std::string line; std::getline(before, line);) {
    if (line.find("eval_loss") == std::string::npos) without += line + "\n";
  }
  write_text(metrics, without);
  const ProcessResult again = job.run(4, {"--set", "checkpoint.keep=1"});
  INFO(again.output);
  REQUIRE(again.exit_code == 0);
  CHECK(again.output.find("step 8  eval_loss") != std::string::npos);
  CHECK(checkpoints_of(job.run_dir()) == std::set<std::string>{"step-00000008"});
}

}  // namespace tptrain::testing
