// Fine-tuning on conversations, through the program: packed to fit best under document masks on tp
// 2 x dp 2 it is the training of one rank with one conversation a sequence. With the tokenizer of
// Qwen2 and its template: needs the folder TPTRAIN_TEST_DATA.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "base/text.h"
#include "support/catch.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

constexpr int kPacked = 14;  // sequences of 96 tokens that 24 conversations of up to 79 fill

struct Row {
  double loss = 0;
  double norm = 0;
  int64_t targets = 0;
};

std::vector<Row> train(const Job& job, const std::string& run_dir, int ranks,
                       const std::vector<std::string>& settings, std::string& output) {
  std::vector<std::string> arguments = {"--set", "run_dir=" + run_dir};
  for (const std::string& setting : settings) {
    arguments.push_back("--set");
    arguments.push_back(setting);
  }
  const ProcessResult result = job.run(ranks, arguments);
  output = result.output;
  INFO(output);
  REQUIRE(result.exit_code == 0);
  std::vector<Row> rows;
  std::istringstream lines(read_text(job.directory() / run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("loss"))
      rows.push_back({json["loss"], json["grad_norm"], json["tokens_seen"]});
  }
  return rows;
}

/// The tokenizer as base models have it: what ends a text is not what ends a turn.
void put_base_tokenizer(const fs::path& from, const fs::path& to) {
  write_text(to / "tokenizer.json", read_text(from / "tokenizer.json"));
  auto config = nlohmann::json::parse(read_text(from / "tokenizer_config.json"));
  config["eos_token"] = "<|endoftext|>";
  write_text(to / "tokenizer_config.json", config.dump());
}

nlohmann::json exported_end(const Job& job, const std::string& run_dir, std::string& output) {
  const ProcessResult result =
      job.tool({"export", "--checkpoint", run_dir, "--out", run_dir + "-exported"});
  output = result.output;
  INFO(output);
  REQUIRE(result.exit_code == 0);
  const fs::path file = job.directory() / (run_dir + "-exported") / "generation_config.json";
  return nlohmann::json::parse(read_text(file)).at("eos_token_id");
}

}  // namespace

TEST_CASE("packed conversations train as one conversation a sequence", "[e2e]") {
  const char* data = std::getenv("TPTRAIN_TEST_DATA");
  if (data == nullptr) throw std::runtime_error("TPTRAIN_TEST_DATA is not set");
  Job job;
  // The first 24 conversations; every step is an epoch, so that the steps' documents are the same.
  std::istringstream all(read_text(fs::path(data) / "text/chat.jsonl"));
  std::string rows;
  std::string line;
  const std::string messages = "{\"messages\"";
  for (int i = 0; i < 24 && std::getline(all, line); ++i) {
    REQUIRE(line.starts_with(messages));
    rows += cat("{\"text\": \"not read\", \"dialog\"", line.substr(messages.size()), "\n");
  }
  write_text(job.directory() / "text/chat.jsonl", rows);
  job.edit("vocab_size: 272", "vocab_size: 151936");
  job.edit("train: [text/train.txt]\n  eval: [text/eval.txt]",
           "train: [text/chat.jsonl]\n  columns: {messages: dialog}\n  cache_dir: cache\n"
           "  tokenizer: tokenizer");
  put_base_tokenizer(fs::path(data) / "tokenizers/qwen2", job.directory() / "tokenizer");
  job.edit("eval: {every_steps: 4}", "");
  job.edit("  seq_length: 32\n  micro_batch_size: 1\n  global_batch_size: 4\n  max_steps: 8",
           "  seq_length: 96\n  micro_batch_size: 2\n  epochs: 3");
  std::string output;
  const std::vector<Row> alone =
      train(job, "alone", 1,
            {"data.packing=none", "train.micro_batch_size=2", "train.global_batch_size=24",
             "parallel.tp_size=1", "parallel.dp_size=1"},
            output);
  CHECK(output.find("what is learned in [[ ]]") != std::string::npos);
  CHECK(output.find("sequences: 24 of 96") != std::string::npos);
  REQUIRE(alone.size() == 3);
  CHECK(alone.back().loss < 0.99 * alone.front().loss);  // else equal curves prove nothing
  const std::vector<Row> packed =
      train(job, "packed", 4,
            {"data.packing=best_fit", "data.document_mask=true",
             cat("train.global_batch_size=", kPacked), "train.micro_batch_size=1"},
            output);
  CHECK(output.find(cat("sequences: ", kPacked, " of 96")) != std::string::npos);
  REQUIRE(packed.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(packed[i].targets == alone[i].targets);
    CHECK(std::abs(packed[i].loss / alone[i].loss - 1) <= 1e-5);
    CHECK(std::abs(packed[i].norm / alone[i].norm - 1) <= 1e-5);
  }
  // Whoever loads the model stops where it has learned to.
  CHECK(exported_end(job, "packed", output) == nlohmann::json({151643, 151645}));
  CHECK(output.find("note: generation_config.json: 151645 is added to eos_token_id") !=
        std::string::npos);
}

}  // namespace tptrain::testing
