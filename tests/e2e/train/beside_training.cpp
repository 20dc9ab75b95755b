// What stands beside the training: metrics, the log, evaluations, batches without a target. Where
// they fail, the steps and the checkpoints do not.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

size_t times(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

/// Rows of ids with labels; those of `masked` have no target.
std::string labelled_rows(int rows, const std::function<bool(int)>& masked) {
  std::string text;
  for (int row = 0; row < rows; ++row) {
    nlohmann::json ids, labels;
    for (int i = 0; i < 33; ++i) {
      ids.push_back(5 + (row * 37 + i * 11) % 200);
      labels.push_back(masked(row) || i < 4 ? nlohmann::json(-100) : ids.back());
    }
    text += nlohmann::json({{"input_ids", ids}, {"labels", labels}}).dump() + "\n";
  }
  return text;
}

struct Line {
  int64_t step = 0;
  std::string skipped;
  double loss = 0;
  int64_t tokens_seen = 0;
};

std::vector<Line> lines_of(const fs::path& run_dir) {
  std::vector<Line> lines;
  std::istringstream text(read_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("eval_loss") || json.contains("save_s")) continue;
    lines.push_back(
        {json["step"], json.value("skipped", ""), json.value("loss", 0.0), json["tokens_seen"]});
  }
  return lines;
}

/// Overwrites tokens with ids beyond any vocabulary, in the file that the run has mapped.
void spoil_tokens(const fs::path& directory, const std::string& split) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(split + "-") || !name.ends_with(".bin")) continue;
    const int file = ::open(entry.path().c_str(), O_WRONLY);
    const std::string spoilt(fs::file_size(entry.path()), '\xff');
    REQUIRE(::pwrite(file, spoilt.data(), spoilt.size(), 0) == static_cast<ssize_t>(spoilt.size()));
    ::close(file);
  }
}

}  // namespace

TEST_CASE("metrics and a log on a full device cost their lines, not the run", "[e2e]") {
  const Job job;
  fs::create_directories(job.run_dir());
  fs::create_symlink("/dev/full", job.run_dir() / "metrics.jsonl");
  fs::create_symlink("/dev/full", job.run_dir() / "log.txt");
  const ProcessResult result = job.run();
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK(job.tool({"verify", "run/checkpoints/step-00000008"}).exit_code == 0);
  CHECK(times(result.output, "metrics are lost, the training goes on") == 1);
  CHECK(times(result.output, "the log could not be written (") == 1);
  CHECK(has(result.output,
            "metrics.jsonl: 14 records are missing"));  // 8 steps, 3 evaluations and saves
  CHECK(has(result.output, "log.txt: the log could not be written"));
}

TEST_CASE("a FIFO in place of metrics or log is refused at once", "[e2e]") {
  const Job job;
  const std::string name = GENERATE("metrics.jsonl", "log.txt");
  fs::create_directories(job.run_dir());
  REQUIRE(::mkfifo((job.run_dir() / name).c_str(), 0600) == 0);
  const ProcessResult result = job.run();
  INFO(result.output);
  CHECK(result.exit_code == 2);
  CHECK(times(result.output, name + ": there is a FIFO of this name") == 1);
}

TEST_CASE("an evaluation that fails ends neither the run nor its saves", "[e2e]") {
  Job job;
  job.edit("max_steps: 8", "max_steps: 400");
  job.edit("save_steps: 3", "save_steps: 0");
  job.edit("every_steps: 4", "every_steps: 50");
  Process process(job.command(4, {"--config", "run.yaml"}), job.directory());
  REQUIRE(wait_for_step(process, job.run_dir(), 3));
  spoil_tokens(job.run_dir() / "data", "eval");
  const ProcessResult result = process.wait();
  INFO(result.output);
  CHECK(result.exit_code == 0);
  CHECK(metric_lines(job.run_dir()).size() == 400);
  CHECK(fs::exists(checkpoint_at(job.run_dir(), 400) / "manifest.json"));
  CHECK(times(result.output, "failed, the training goes on: data error: ") == 1);
  CHECK(has(result.output, "evaluations that failed: "));
  const size_t saved = result.output.find("committed in");
  CHECK(saved != std::string::npos);
  CHECK(saved < result.output.find("evaluations that failed: "));
}

TEST_CASE("held-out text without a target is refused before the first step", "[e2e]") {
  Job job;
  write_text(job.directory() / "text/eval.jsonl", labelled_rows(8, [](int) { return true; }));
  job.edit("text/eval.txt", "text/eval.jsonl");
  const ProcessResult result = job.run();
  INFO(result.output);
  CHECK(result.exit_code == 3);
  CHECK(has(result.output, "data error: data.eval: not a single token to predict"));
  CHECK_FALSE(has(result.output, "step 1/"));
}

TEST_CASE("rows of which none has a target are refused before the first step", "[e2e]") {
  Job job;
  write_text(job.directory() / "text/train.jsonl", labelled_rows(8, [](int) { return true; }));
  job.edit("text/train.txt", "text/train.jsonl");
  const ProcessResult result = job.run();
  INFO(result.output);
  CHECK(result.exit_code == 3);
  CHECK(has(result.output,
            "data.train: 8 of 8 documents without a target within "
            "train.seq_length: text/train.jsonl:1, "));
}

TEST_CASE("a global batch without a target is passed over, alike on every layout", "[e2e]") {
  Job job;
  // Global batches of four rows in their order: the third has no target, others have some without.
  write_text(job.directory() / "text/train.jsonl",
             labelled_rows(40, [](int row) { return (row >= 8 && row < 12) || row % 5 == 0; }));
  job.edit("train: [text/train.txt]",
           "train: [text/train.jsonl]\n  packing: none\n  shuffle: false");
  job.edit("\n  eval: [text/eval.txt]", "");
  job.edit("save_steps: 3", "save_steps: 1");
  job.edit("type: cosine, warmup_steps: 2", "type: constant");
  const auto run = [&](const std::string& name, int ranks, std::vector<std::string> settings) {
    std::vector<std::string> arguments = {"--set", "run_dir=" + name};
    for (const std::string& setting : settings) {
      arguments.push_back("--set");
      arguments.push_back(setting);
    }
    const ProcessResult result = job.run(ranks, arguments);
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
    CHECK(has(result.output, "1 without a target passed over"));
    CHECK(has(result.output,
              "11 of 40 documents without a target within train.seq_length: "
              "text/train.jsonl:1, text/train.jsonl:6, text/train.jsonl:9, "));
    return lines_of(job.directory() / name);
  };
  const std::vector<Line> alone = run("alone", 1, {"parallel.tp_size=1", "parallel.dp_size=1"});
  REQUIRE(alone.size() == 8);
  CHECK(alone[2].skipped == "no_targets");
  CHECK(alone[2].tokens_seen == alone[1].tokens_seen);
  // Nothing was updated: the step's checkpoint holds what the one before it does.
  CHECK(shards_of(checkpoint_at(job.directory() / "alone", 2)) ==
        shards_of(checkpoint_at(job.directory() / "alone", 3)));

  const std::vector<std::vector<std::string>> layouts = {
      {},
      {"parallel.tp_size=1", "parallel.dp_size=4", "parallel.zero_stage=3"},
      {"parallel.tp_size=4", "parallel.dp_size=1", "train.grad_accum_steps=4"}};
  int number = 0;
  for (const std::vector<std::string>& layout : layouts) {
    const std::vector<Line> lines = run(cat("run", ++number), 4, layout);
    REQUIRE(lines.size() == alone.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      CHECK(lines[i].step == alone[i].step);
      CHECK(lines[i].skipped == alone[i].skipped);
      CHECK(lines[i].tokens_seen == alone[i].tokens_seen);
      CHECK(std::abs(lines[i].loss - alone[i].loss) <= 1e-5 * alone[i].loss);
    }
  }
  // Stopped on it and started again, the run goes on behind it.
  job.run(4, {"--set", "run_dir=again", "--set", "train.max_steps=3"});
  REQUIRE(job.run(4, {"--set", "run_dir=again"}).exit_code == 0);
  CHECK(metric_lines(job.directory() / "again") == metric_lines(job.directory() / "run1"));
}

}  // namespace tptrain::testing
