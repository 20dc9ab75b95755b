// Documents packed into sequences with data.document_mask, through the program: they train as one
// document a sequence does, on any layout, and as they do not without the mask.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

constexpr int kSequence = 32;  // tokens, train.seq_length of the job

/// Documents of bytes, two a sequence: with the end of text that closes each, they fill it.
std::string documents(const std::string& text, int sequences) {
  std::string lines;
  size_t at = 0;
  const auto add = [&](int tokens) {
    const auto bytes = static_cast<size_t>(tokens - 1);
    lines += nlohmann::json({{"text", text.substr(at, bytes)}}).dump() + "\n";
    at += bytes;
  };
  for (int i = 0; i < sequences; ++i) {
    const int first = 3 + i * 7 % (kSequence - 5);
    add(first);
    add(kSequence - first);
  }
  return lines;
}

struct Row {
  double loss = 0;  // or eval_loss
  double norm = 0;
  int64_t targets = 0;
};

std::vector<Row> rows_of(const fs::path& run_dir) {
  std::vector<Row> rows;
  std::istringstream lines(read_text(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("loss"))
      rows.push_back({json["loss"], json["grad_norm"], json["tokens_seen"]});
    if (json.contains("eval_loss")) rows.push_back({json["eval_loss"], 1.0, 0});
  }
  return rows;
}

/// The worst relative difference of a loss or a norm; infinite where counts differ.
double difference(const std::vector<Row>& a, const std::vector<Row>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].targets != b[i].targets) return INFINITY;
    worst =
        std::max({worst, std::abs(a[i].loss / b[i].loss - 1), std::abs(a[i].norm / b[i].norm - 1)});
  }
  return worst;
}

class DocumentsJob : public Job {
 public:
  DocumentsJob() {
    const std::string text = read_text(directory() / "text/train.txt");
    write_text(directory() / "text/train.jsonl", documents(text, 40));
    write_text(directory() / "text/eval.jsonl", documents(text.substr(2000), 6));
    edit("train: [text/train.txt]\n  eval: [text/eval.txt]",
         "train: [text/train.jsonl]\n  eval: [text/eval.jsonl]\n  shuffle: false\n"
         "  document_mask: true");
    edit("eval: {every_steps: 4}", "eval: {every_steps: 4, max_batches: 1}");
  }
  std::vector<Row> train(int ranks, const std::vector<std::string>& settings) {
    const std::string name = cat("run", ++runs_);
    std::vector<std::string> arguments = {"--set", "run_dir=" + name};
    for (const std::string& setting : settings) {
      arguments.push_back("--set");
      arguments.push_back(setting);
    }
    const ProcessResult result = run(ranks, arguments);
    output = result.output;
    INFO(output);
    REQUIRE(result.exit_code == 0);
    return rows_of(directory() / name);
  }

  std::string output;  // of the last run

 private:
  int runs_ = 0;
};

}  // namespace

TEST_CASE("masked documents train like one document a sequence, and otherwise they do not",
          "[e2e]") {
  DocumentsJob job;
  // A global batch of 4 sequences is 8 documents.
  const std::vector<Row> alone =
      job.train(1, {"data.packing=none", "data.document_mask=false", "train.global_batch_size=8",
                    "parallel.tp_size=1", "parallel.dp_size=1"});
  CHECK(job.output.find("do not see each other") == std::string::npos);
  REQUIRE(alone.size() == 11);  // 8 steps, evaluations at 0, 4 and 8

  CHECK(difference(job.train(4, {}), alone) <= 1e-5);
  CHECK(job.output.find("documents in a sequence do not see each other") != std::string::npos);
  CHECK(difference(job.train(4, {"parallel.zero_stage=3", "parallel.recompute=full",
                                 "parallel.tp_size=1", "parallel.dp_size=4"}),
                   alone) <= 1e-5);
  CHECK(difference(
            job.train(1, {"parallel.tp_size=1", "parallel.dp_size=1", "train.micro_batch_size=2"}),
            alone) <= 1e-5);
  // One document a sequence with the mask: its padding is a document of its own.
  CHECK(difference(job.train(2, {"data.packing=none", "train.global_batch_size=8",
                                 "parallel.dp_size=1", "train.micro_batch_size=4"}),
                   alone) <= 1e-5);

  std::vector<Row> unmasked = job.train(4, {"data.document_mask=false"});
  CHECK(unmasked.front().loss > 0);
  for (size_t i = 0; i < unmasked.size(); ++i) {
    CHECK(unmasked[i].targets >= alone[i].targets);  // the first token of the next document as well
    unmasked[i].targets = alone[i].targets;
  }
  CHECK(difference(unmasked, alone) > 1e-3);
}

TEST_CASE("documents packed to fit best are those of the text, each once an epoch", "[e2e]") {
  DocumentsJob job;
  // Steps of a whole epoch: which documents lie together is then the same to the numbers.
  const std::vector<std::string> epochs = {"train.max_steps=3", "data.eval=[]",
                                           "checkpoint.save_steps=100"};
  const auto settings = [&](std::vector<std::string> more) {
    more.insert(more.end(), epochs.begin(), epochs.end());
    return more;
  };
  const std::vector<Row> alone = job.train(
      1, settings({"data.packing=none", "data.document_mask=false", "train.global_batch_size=80",
                   "train.micro_batch_size=8", "parallel.tp_size=1", "parallel.dp_size=1"}));
  CHECK(job.output.find("sequences: 80 of 32, 50.0 % padding") != std::string::npos);
  REQUIRE(alone.size() == 3);
  const std::vector<std::string> packed =
      settings({"data.packing=best_fit", "data.shuffle=true", "train.global_batch_size=40"});
  CHECK(difference(job.train(4, packed), alone) <= 1e-5);
  CHECK(job.output.find("sequences: 40 of 32;") != std::string::npos);
  CHECK(job.output.find("documents in a sequence do not see each other") != std::string::npos);
}

TEST_CASE("a run of masked documents resumes as itself, and says where the mask is another",
          "[e2e]") {
  DocumentsJob job;
  const std::vector<Row> whole = job.train(4, {});
  const auto in_run = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--set", "run_dir=parts"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return job.run(4, arguments);
  };
  REQUIRE(in_run({}).exit_code == 0);
  for (const int step : {6, 8}) fs::remove_all(checkpoint_at(job.directory() / "parts", step));
  const ProcessResult resumed = in_run({});
  INFO(resumed.output);
  REQUIRE(resumed.exit_code == 0);
  CHECK(resumed.output.find("resume: ") != std::string::npos);
  CHECK(difference(rows_of(job.directory() / "parts"), whole) == 0);

  fs::remove_all(checkpoint_at(job.directory() / "parts", 8));
  const ProcessResult other = in_run({"--set", "data.document_mask=false"});
  INFO(other.output);
  CHECK(other.output.find("resume: settings changed: data.document_mask") != std::string::npos);
}

}  // namespace tptrain::testing
