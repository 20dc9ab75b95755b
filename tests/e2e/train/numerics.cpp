// What a user sees of layouts, dtypes and numbers that go wrong, from the program itself.
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

void check_done(const ProcessResult& result) {
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
}

double last_loss(const fs::path& run_dir) {
  std::istringstream lines(read_text(run_dir / "metrics.jsonl"));
  double loss = -1;
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.contains("loss")) loss = row["loss"];
  }
  REQUIRE(loss > 0);
  return loss;
}

}  // namespace

TEST_CASE("any layout of four ranks ends with the same loss", "[e2e]") {
  Job job;
  check_done(job.run());
  const double expected = last_loss(job.run_dir());
  int run = 0;
  const auto check_layout = [&](const std::vector<std::string>& settings, double tolerance) {
    const std::string run_dir = "run" + std::to_string(++run);
    std::vector<std::string> arguments = {"--set", "run_dir=" + run_dir};
    for (const std::string& setting : settings) {
      arguments.push_back("--set");
      arguments.push_back(setting);
    }
    check_done(job.run(4, arguments));
    CAPTURE(settings);
    CHECK(std::abs(last_loss(job.directory() / run_dir) - expected) <= tolerance * expected);
  };
  check_layout({"parallel.zero_stage=3", "parallel.recompute=full"}, 1e-5);
  check_layout({"parallel.zero_stage=2", "parallel.sequence_parallel=false"}, 1e-5);
  check_layout({"parallel.tp_size=4", "parallel.dp_size=1", "parallel.recompute=selective"}, 1e-5);
  check_layout({"parallel.tp_size=1", "parallel.dp_size=4", "parallel.zero_stage=3"}, 1e-5);
  check_layout({"train.dtype=bf16", "parallel.zero_stage=3", "train.gradient_dtype=bf16"}, 1e-2);
}

TEST_CASE("a checkpoint of one stage and dtype goes on in another", "[e2e]") {
  Job job;
  check_done(job.run(4, {"--set", "train.max_steps=3", "--set", "parallel.zero_stage=3", "--set",
                         "train.dtype=bf16"}));
  const ProcessResult more = job.run(4, {"--set", "parallel.tp_size=4", "--set",
                                         "parallel.dp_size=1", "--set", "parallel.zero_stage=0"});
  check_done(more);
  INFO(more.output);
  CHECK(has(more.output, "step 3"));
  CHECK(metric_lines(job.run_dir()).size() == 8);
}

TEST_CASE("a run in FP8 says so, learns as bf16 does, and resumes bit for bit", "[e2e]") {
  const auto fp8 = [](std::vector<std::string> more) {
    more.insert(more.end(), {"--set", "train.dtype=bf16", "--set", "train.fp8=on"});
    return more;
  };
  const Job job;
  const ProcessResult whole =
      job.run(4, fp8({"--set", "run_dir=whole", "--set", "logging.fp8_counts=true"}));
  check_done(whole);
  std::istringstream lines(read_text(job.directory() / "whole" / "metrics.jsonl"));
  int counted = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    if (!row.contains("fp8_flushed")) continue;
    ++counted;
    CHECK(row["fp8_flushed"].get<double>() < 0.01);
    CHECK(row["fp8_saturated"].get<int64_t>() == 0);
  }
  CHECK(counted == 8);
  INFO(whole.output);
  CHECK(has(whole.output, "FP8: the linears of 2 of 2 layers"));
  CHECK(has(whole.output, "FP8: no gain is to be expected"));  // hidden 32
  check_done(job.run(4, {"--set", "train.dtype=bf16", "--set", "run_dir=bf16"}));
  const double expected = last_loss(job.directory() / "bf16");
  CHECK(std::abs(last_loss(job.directory() / "whole") - expected) <= 0.02 * expected);

  const std::string third = checkpoint_at(job.directory() / "whole", 3).string();
  check_done(job.run(4, fp8({"--set", "checkpoint.resume=" + third})));
  CHECK(shards_of(checkpoint_at(job.run_dir(), 8)) ==
        shards_of(checkpoint_at(job.directory() / "whole", 8)));

  // So does one that gathers FP8, in the stage that gathers most; audits read its parameters.
  const auto gathered = [&](const std::string& run_dir, const std::string& resume) {
    return fp8({"--set", "train.fp8_all_gather=on", "--set", "parallel.zero_stage=3", "--set",
                "logging.audit_steps=2", "--set", "run_dir=" + run_dir, "--set",
                "checkpoint.resume=" + resume});
  };
  const ProcessResult as_fp8 = job.run(4, gathered("gathered", "auto"));
  check_done(as_fp8);
  CHECK(has(as_fp8.output, "FP8: the linears of 2 of 2 layers, gathered as such"));
  CHECK(std::abs(last_loss(job.directory() / "gathered") - expected) <= 0.02 * expected);
  const std::string middle = checkpoint_at(job.directory() / "gathered", 3).string();
  check_done(job.run(4, gathered("again", middle)));
  CHECK(shards_of(checkpoint_at(job.directory() / "again", 8)) ==
        shards_of(checkpoint_at(job.directory() / "gathered", 8)));
}

TEST_CASE("numbers that are not finite stop the run, or are skipped for a while", "[e2e]") {
  Job job;
  job.edit("learning_rate: 3e-3", "learning_rate: 1e38, max_grad_norm: 0");
  job.edit("warmup_steps: 2", "warmup_steps: 0");
  job.edit("max_steps: 8", "max_steps: 40");
  SECTION("stop") {
    const ProcessResult result = job.run();
    INFO(result.output);
    CHECK(result.exit_code == 5);
    CHECK(has(result.output, "must be finite"));
    CHECK(has(result.output, "first seen on rank "));
  }
  SECTION("skip") {
    const ProcessResult result =
        job.run(4, {"--set", "train.nonfinite=skip", "--set", "checkpoint.save_steps=0"});
    INFO(result.output);
    CHECK(result.exit_code == 5);
    CHECK(has(result.output, "skipped, its update was not applied on any rank"));
    CHECK(has(result.output, "10 steps in a row were skipped"));
  }
  SECTION("nor are they saved") {
    const ProcessResult result = job.run(4, {"--set", "train.nonfinite=skip"});
    INFO(result.output);
    CHECK(result.exit_code == 5);
    CHECK(has(result.output, "holds a value that is not"));
    CHECK(has(result.output, "Nothing was committed"));
    for (const auto& entry : fs::directory_iterator(job.run_dir() / "checkpoints"))
      CHECK_FALSE(entry.path().filename().string().starts_with("step-"));
  }
}

TEST_CASE("attention dropout says that it takes the unfused path", "[e2e]") {
  Job job;
  const ProcessResult result =
      job.run(4, {"--set", "train.attention_dropout=0.1", "--set", "train.max_steps=2"});
  check_done(result);
  CHECK(has(result.output, "unfused path"));
}

}  // namespace tptrain::testing
