// tptrain evaluate on Hugging Face directories: the loss that transformers gives for the same rows,
// on several layouts. Needs the folder TPTRAIN_TEST_DATA, and golden/README.md in it says what the
// numbers are.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../train/training_job.h"
#include "base/text.h"
#include "support/catch.h"

namespace tptrain::testing {
namespace {

fs::path test_data() {
  const char* folder = std::getenv("TPTRAIN_TEST_DATA");
  if (!folder) throw std::runtime_error("TPTRAIN_TEST_DATA is not set: it names the test data");
  return folder;
}

/// One tensor of a safetensors file: by hand, so that it does not rest on the reader under test.
template <typename T>
std::vector<T> tensor_of(const fs::path& file, const std::string& name) {
  const std::string bytes = read_text(file);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  const nlohmann::json header = nlohmann::json::parse(bytes.substr(8, header_bytes));
  const std::vector<uint64_t> offsets = header.at(name).at("data_offsets");
  std::vector<T> values((offsets[1] - offsets[0]) / sizeof(T));
  std::memcpy(values.data(), bytes.data() + 8 + header_bytes + offsets[0], offsets[1] - offsets[0]);
  return values;
}

}  // namespace

TEST_CASE("the loss of ids is transformers' on every layout", "[e2e]") {
  const Job job;
  for (const std::string model : {"qwen2_tied", "llama_rope3_sharded", "gpt2"}) {
    const fs::path directory = test_data() / "golden" / model;
    const auto ids = tensor_of<int64_t>(directory / "golden.safetensors", "input_ids");
    REQUIRE(ids.size() == 4 * 33);
    std::string rows;
    for (size_t row = 0; row < 4; ++row) {
      const std::vector<int64_t> line(ids.begin() + row * 33, ids.begin() + (row + 1) * 33);
      rows += nlohmann::json({{"input_ids", line}}).dump() + "\n";
    }
    write_text(job.directory() / "rows.jsonl", rows);
    const float loss = tensor_of<float>(directory / "golden.safetensors", "loss").at(0);
    for (const int tp_size : {1, 2, 4}) {
      const ProcessResult result =
          run_process(job.command(4, {"evaluate", "--model", directory.string(), "--data",
                                      "rows.jsonl", "--packing", "none", "--seq-length", "33",
                                      "--tp-size", std::to_string(tp_size), "--json"}),
                      job.directory());
      INFO(model << ", tp " << tp_size << ": " << result.output);
      REQUIRE(result.exit_code == 0);
      const nlohmann::json json = nlohmann::json::parse(result.standard_output);
      CHECK(json["target_tokens"] == 4 * 32);
      // Two right float32 programs differ by 1e-6 (golden/README.md).
      CHECK(std::abs(json["loss"].get<double>() - loss) < 1e-5);
    }
  }
}

TEST_CASE("real text in JSON lines: every document, with the model's own tokenizer", "[e2e]") {
  const Job job;
  const fs::path text = test_data() / "text/pretrain.jsonl";
  int64_t documents = 0;
  for (const char c : read_text(text)) documents += c == '\n' ? 1 : 0;
  const ProcessResult result = job.tool(
      {"evaluate", "--model", (test_data() / "golden/qwen2_tied").string(), "--data", text.string(),
       "--seq-length", "32", "--max-batches", "10", "--micro-batch-size", "4", "--json"});
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  const nlohmann::json json = nlohmann::json::parse(result.standard_output);
  CHECK(json["documents"] == documents);
  CHECK(json["target_tokens"] == 10 * 4 * 32);
  // Random weights know nothing: near the logarithm of the vocabulary's size, 515.
  CHECK(json["loss"].get<double>() == Approx(std::log(515.0)).epsilon(0.1));
}

}  // namespace tptrain::testing
