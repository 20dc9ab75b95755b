// Another update rule through the binary: it trains, goes on from its checkpoint bit by bit, and
// its state is no other rule's.
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {

TEST_CASE("lion trains, resumes bit by bit, and another rule refuses its checkpoint", "[e2e]") {
  const Job job;
  const std::vector<std::string> lion = {"--set", "optimizer.type=lion"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), lion.begin(), lion.end());
    return more;
  };
  REQUIRE(job.run(4, with({"--set", "run_dir=whole"})).exit_code == 0);
  REQUIRE(job.run(4, with({"--set", "train.max_steps=3"})).exit_code == 0);
  REQUIRE(job.run(4, lion).exit_code == 0);
  CHECK(shards_of(checkpoint_at(job.run_dir(), 8)) ==
        shards_of(checkpoint_at(job.directory() / "whole", 8)));

  const ProcessResult inspect = job.tool({"inspect", "run"});
  INFO(inspect.output);
  CHECK(inspect.output.find("master pieces  exp_avg pieces\n") != std::string::npos);

  const ProcessResult other = job.run(4, {"--set", "train.max_steps=10"});
  INFO(other.output);
  CHECK(other.exit_code == 4);
  CHECK(other.output.find("the checkpoint was trained with lion (it keeps exp_avg), and "
                          "optimizer.type is adamw (exp_avg and exp_avg_sq)") != std::string::npos);
  CHECK(other.output.find("Set optimizer.type to lion") != std::string::npos);
}

TEST_CASE("muon trains, resumes bit by bit and on another layout, and adamw refuses its checkpoint",
          "[e2e]") {
  const Job job;
  const std::vector<std::string> muon = {"--set", "optimizer.type=muon"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), muon.begin(), muon.end());
    return more;
  };
  REQUIRE(job.run(4, with({"--set", "run_dir=whole"})).exit_code == 0);
  const ProcessResult begun = job.run(4, with({"--set", "train.max_steps=3"}));
  INFO(begun.output);
  REQUIRE(begun.exit_code == 0);
  CHECK(begun.output.find("optimizer.type muon adds ") != std::string::npos);  // a tiny batch
  REQUIRE(job.run(4, muon).exit_code == 0);
  CHECK(shards_of(checkpoint_at(job.run_dir(), 8)) ==
        shards_of(checkpoint_at(job.directory() / "whole", 8)));

  const ProcessResult inspect = job.tool({"inspect", "run"});
  INFO(inspect.output);
  CHECK(inspect.output.find("momentum_buffer pieces") != std::string::npos);

  const ProcessResult other = job.run(4, {"--set", "train.max_steps=10"});
  INFO(other.output);
  CHECK(other.exit_code == 4);
  CHECK(other.output.find("the checkpoint was trained with muon (it keeps exp_avg and exp_avg_sq "
                          "and momentum_buffer), and optimizer.type is adamw (exp_avg and "
                          "exp_avg_sq)") != std::string::npos);
  CHECK(other.output.find("Set optimizer.type to muon") != std::string::npos);

  const ProcessResult elsewhere =
      job.run(2, with({"--set", "parallel.tp_size=1", "--set", "parallel.zero_stage=3", "--set",
                       "train.max_steps=10"}));
  INFO(elsewhere.output);
  CHECK(elsewhere.exit_code == 0);
  CHECK(elsewhere.output.find("nothing to train") == std::string::npos);

  const ProcessResult plan =
      job.tool({"plan", "--config", "run.yaml", "--set", "optimizer.type=muon"});
  INFO(plan.output);
  CHECK(plan.output.find("matrices orthogonal, 5 Newton-Schulz steps each") != std::string::npos);
  CHECK(plan.output.find("tp all-to-all") != std::string::npos);
}

TEST_CASE("frozen weights stay as they were, have no state, and a run goes on with them", "[e2e]") {
  Job job;
  job.edit("model:", "model:\n  freeze: [\"model.embed_tokens.*\", \"model.layers.0.*\"]");
  REQUIRE(job.run(4, {"--set", "run_dir=whole"}).exit_code == 0);
  REQUIRE(job.run(4, {"--set", "train.max_steps=3"}).exit_code == 0);
  REQUIRE(job.run(2, {"--set", "parallel.tp_size=1", "--set", "train.max_steps=6"}).exit_code == 0);
  const ProcessResult inspect = job.tool({"inspect", "run"});
  INFO(inspect.output);
  CHECK(inspect.exit_code == 0);
  CHECK(inspect.output.find("  -  ") != std::string::npos);  // no moments of the frozen
  const ProcessResult plan = job.tool({"plan", "--config", "run.yaml"});
  INFO(plan.output);
  CHECK(plan.output.find("vocab-parallel, frozen") != std::string::npos);
  CHECK(plan.output.find("of them trained") != std::string::npos);
  const ProcessResult unknown = job.run(4, {"--set", "model.freeze=[layers.0.*]"});
  INFO(unknown.output);
  CHECK(unknown.exit_code == 2);
  CHECK(unknown.output.find("which fits no tensor of the model") != std::string::npos);
}

}  // namespace tptrain::testing
