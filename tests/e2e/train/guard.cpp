// train.guard: what becomes of a stretch of noise in otherwise steady text, on every layout and
// over a resume.
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

constexpr const char* kOneRank[2] = {"1", "parallel={tp_size: 1, dp_size: 1}"};
constexpr const char* kFourRanks[2] = {"4", "parallel={tp_size: 2, dp_size: 2, zero_stage: 1}"};
constexpr const char* kTwoRanks[2] = {"2", "parallel={tp_size: 1, dp_size: 2, zero_stage: 3}"};

/// Steps of 128 tokens: one sentence again and again, and from step 100 on three steps of noise.
void make_noisy(Job& job, const std::string& action) {
  std::string text;
  while (text.size() < 128 * 100) text += "The cat sat on the mat and looked at the rain.\n";
  uint32_t random = 12345;
  for (int i = 0; i < 3 * 128; ++i) {
    random = random * 1664525 + 1013904223;
    text += static_cast<char>('!' + (random >> 16) % 90);
  }
  while (text.size() < 128 * 200) text += "The cat sat on the mat and looked at the rain.\n";
  write_text(job.directory() / "text/train.txt", text);
  job.edit("  eval: [text/eval.txt]\n", "  shuffle: false\n");
  job.edit("max_steps: 8", cat("max_steps: 130\n  guard: {action: ", action,
                               ", window: 20, threshold: 12}\n  cpu_threads: 1"));
  job.edit("save_steps: 3", "save_steps: 30");
  job.edit("type: cosine", "type: constant");
}

ProcessResult run_as(const Job& job, const char* const* layout,
                     std::vector<std::string> more = {}) {
  more.insert(more.begin(), {"--set", layout[1], "--set", cat("run_dir=run", layout[0])});
  const ProcessResult result = job.run(std::stoi(layout[0]), more);
  INFO(result.output);
  CHECK(result.exit_code == 0);
  return result;
}

std::vector<nlohmann::json> rows_of(const fs::path& run_dir) {
  std::vector<nlohmann::json> rows;
  std::istringstream text(read_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

std::vector<int> skipped_steps(const fs::path& run_dir) {
  std::vector<int> steps;
  for (const nlohmann::json& row : rows_of(run_dir))
    if (row.value("skipped", "") == "outlier") steps.push_back(row["step"]);
  return steps;
}

double highest_loss_after(const fs::path& run_dir, int step) {
  double highest = 0;
  for (const nlohmann::json& row : rows_of(run_dir))
    if (row.contains("loss") && row["step"] > step)
      highest = std::max(highest, row["loss"].get<double>());
  return highest;
}

int count_of(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("outliers are skipped, the same ones on every layout", "[e2e]") {
  Job job;
  make_noisy(job, "skip");
  for (const auto& layout : {kOneRank, kFourRanks}) {
    run_as(job, layout);
    const fs::path run_dir = job.directory() / cat("run", layout[0]);
    const std::vector<int> skipped = skipped_steps(run_dir);
    REQUIRE_FALSE(skipped.empty());
    CHECK(skipped.front() >= 100);
    CHECK(skipped.back() <= 104);
    CHECK(skipped == skipped_steps(job.directory() / "run1"));
    CHECK(highest_loss_after(run_dir, 60) < 1);
  }
}

TEST_CASE("a run goes back for outliers and leaves their batches out, over a resume as well",
          "[e2e]") {
  Job job;
  make_noisy(job, "rollback");
  std::vector<nlohmann::json> of_one_rank;
  for (const auto& layout : {kOneRank, kTwoRanks}) {
    const ProcessResult result = run_as(job, layout);
    const fs::path run_dir = job.directory() / cat("run", layout[0]);
    const std::vector<nlohmann::json> rows = rows_of(run_dir);
    CHECK(count_of(result.output, "): the run goes back to ") >= 1);
    CHECK(result.output.find("step-00000090 and leaves out the ") != std::string::npos);
    CHECK(skipped_steps(run_dir).empty());
    CHECK(highest_loss_after(run_dir, 60) < 1);
    std::vector<nlohmann::json> steps;
    for (const nlohmann::json& row : rows)
      if (row.contains("loss")) steps.push_back(row);
    REQUIRE(steps.size() == 130);
    if (of_one_rank.empty()) of_one_rank = steps;
    for (size_t i = 0; i < steps.size(); ++i) {
      CHECK(steps[i]["step"] == static_cast<int>(i) + 1);
      CHECK(steps[i]["loss"].get<double>() ==
            Approx(of_one_rank[i]["loss"].get<double>()).epsilon(1e-3).margin(1e-4));
    }
  }
  // Stopped behind the noise and started again: the same run.
  Job cut;
  make_noisy(cut, "rollback");
  run_as(cut, kTwoRanks, {"--set", "train.max_steps=110"});
  const ProcessResult resumed = run_as(cut, kTwoRanks);
  CHECK(resumed.output.find("goes back to") == std::string::npos);
  CHECK(metric_lines(cut.directory() / "run2") == metric_lines(job.directory() / "run2"));
}

TEST_CASE("an outlier ends a run where that is asked for, or where it is one too many", "[e2e]") {
  Job job;
  make_noisy(job, "stop");
  const std::vector<std::string> one_rank = {"--set", kOneRank[1]};
  const ProcessResult stopped = job.run(1, one_rank);
  INFO(stopped.output);
  CHECK(stopped.exit_code == 5);
  CHECK(stopped.output.find("(train.guard)") != std::string::npos);
  Job strict;
  make_noisy(strict, "skip");
  const ProcessResult too_many =
      strict.run(1, {"--set", kOneRank[1], "--set", "train.guard.limit=1"});
  INFO(too_many.output);
  CHECK(too_many.exit_code == 5);
  CHECK(too_many.output.find("one more than the 1 outliers of train.guard.limit") !=
        std::string::npos);
  CHECK(skipped_steps(strict.run_dir()).size() == 1);
}

}  // namespace tptrain::testing
