// Saves beside the steps through the binary: a checkpoint a step, and numbers of what they cost.
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {

namespace {

int64_t lines_with(const std::string& text, const std::string& part) {
  std::istringstream lines(text);
  int64_t count = 0;
  for (std::string line; std::getline(lines, line);) count += line.find(part) != std::string::npos;
  return count;
}

/// How many rows of metrics.jsonl tell of a save; of the steps 1, 2, ..., with sane numbers.
int64_t saves_in_order(const fs::path& run_dir) {
  std::istringstream lines(read_text(run_dir / "metrics.jsonl"));
  int64_t saves = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    if (!row.contains("save_s")) continue;
    CHECK(row["step"] == ++saves);
    // A save that training waits for ends with the removal of what is old, after the commit.
    CHECK(row["save_s"].get<double>() > 0);
    CHECK(row["save_stall_s"].get<double>() > 0);
    CHECK(row["save_bytes"].get<int64_t>() > 100'000);
  }
  return saves;
}

}  // namespace

TEST_CASE("a checkpoint has the same bytes whether training waits for it or not", "[e2e]") {
  Job job;
  job.edit("save_steps: 3", "save_steps: 1");
  job.edit("zero_stage: 1", "zero_stage: 2");
  for (const char* async : {"true", "false"}) {
    const ProcessResult result =
        job.run(4, {"--set", std::string("checkpoint.async=") + async, "--set",
                    std::string("run_dir=") + async, "--set", "checkpoint.keep=0"});
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    CHECK(lines_with(result.output, " committed in ") == 8);
  }
  for (int64_t step = 1; step <= 8; ++step) {
    const auto beside = shards_of(checkpoint_at(job.directory() / "true", step));
    CHECK(beside.size() == 4);
    CHECK(beside == shards_of(checkpoint_at(job.directory() / "false", step)));
  }
  CHECK(metric_lines(job.directory() / "true") == metric_lines(job.directory() / "false"));
  CHECK(saves_in_order(job.directory() / "true") == 8);
  CHECK(job.tool({"verify", "true"}).exit_code == 0);
}

TEST_CASE("a save a step: each is committed, in order, and is the state of its step", "[e2e]") {
  Job job;
  job.edit("save_steps: 3", "save_steps: 1");
  job.edit("zero_stage: 1", "zero_stage: 2");
  const ProcessResult straight = job.run();
  INFO(straight.output);
  REQUIRE(straight.exit_code == 0);
  CHECK(saves_in_order(job.run_dir()) == 8);
  CHECK(job.tool({"verify", "run"}).exit_code == 0);
  // What a run that goes on from one of them saves next is what this run saved.
  for (const int64_t step : {2, 5}) {
    const std::string from = checkpoint_at(job.run_dir(), step).string();
    const ProcessResult on =
        job.run(4, {"--set", cat("run_dir=from-", step), "--set", "checkpoint.resume=" + from,
                    "--set", "checkpoint.save_steps=0"});
    INFO(on.output);
    REQUIRE(on.exit_code == 0);
    CHECK(shards_of(checkpoint_at(job.directory() / cat("from-", step), 8)) ==
          shards_of(checkpoint_at(job.run_dir(), 8)));
  }
}

// For the sanitizers: every thread of the program at work, on as few ranks as have something to say
// to each other.
TEST_CASE("two ranks train, evaluate, save beside the steps and go on in another layout",
          "[.sanitized]") {
  Job job;
  job.edit("dp_size: 2", "dp_size: 1");
  job.edit("save_steps: 3", "save_steps: 1");
  const ProcessResult first = job.run(2, {"--set", "train.max_steps=4"});
  INFO(first.output);
  REQUIRE(first.exit_code == 0);
  CHECK(saves_in_order(job.run_dir()) == 4);
  const ProcessResult second =
      job.run(2, {"--set", "parallel.tp_size=1", "--set", "parallel.dp_size=2", "--set",
                  "parallel.zero_stage=3", "--set", "parallel.recompute=full"});
  INFO(second.output);
  REQUIRE(second.exit_code == 0);
  CHECK(saves_in_order(job.run_dir()) == 8);
  CHECK(job.tool({"verify", "run"}).exit_code == 0);
}

}  // namespace tptrain::testing
