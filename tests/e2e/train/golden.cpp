// Against transformers, through the program: a Hugging Face directory is trained for ten steps on
// token rows and exported again; losses, gradient norms and the exported parameters are compared.
// (Logits and gradients: tests/mpi/train/golden.cpp; export alone:
// tests/e2e/tools/golden_export.cpp.)
#include "support/golden.h"

#include <ATen/ATen.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoint/huggingface_source.h"
#include "support/catch.h"
#include "support/process.h"
#include "training_job.h"

namespace tptrain::testing {
namespace {

struct Layout {
  int tp = 1;
  int dp = 1;
  int zero_stage = 1;
};

/// One row a sequence, in the order of the steps.
void write_rows(const GoldenModel& golden, const fs::path& path) {
  const std::vector<int64_t> ids = golden.integers("train.input_ids");
  const int64_t length = golden.shape("train.input_ids").back();
  std::ofstream out(path);
  for (size_t begin = 0; begin < ids.size(); begin += static_cast<size_t>(length)) {
    out << nlohmann::json{{"input_ids", std::vector<int64_t>(
                                            ids.begin() + static_cast<int64_t>(begin),
                                            ids.begin() + static_cast<int64_t>(begin) + length)}}
        << "\n";
  }
}

std::string run_file(const GoldenModel& golden, const Layout& layout) {
  const std::vector<int64_t>& shape = golden.shape("train.input_ids");  // [steps, B, T]
  const bool has_tokenizer = fs::exists(golden.directory() / "tokenizer.json");
  std::ostringstream out;
  out << "run_dir: run\n"
      << "model: {path: " << golden.directory().string() << "}\n"
      << "parallel: {tp_size: " << layout.tp << ", dp_size: " << layout.dp
      << ", zero_stage: " << layout.zero_stage << "}\n"
      << "data: {train: [rows.jsonl], packing: none, shuffle: false"
      << (has_tokenizer ? "" : ", tokenizer: bytes") << "}\n"
      << "train: {seq_length: " << shape[2] << ", micro_batch_size: " << shape[1] / layout.dp
      << ", global_batch_size: " << shape[1] << ", max_steps: " << shape[0]
      << ", device: cpu, dtype: fp32}\n"
      << "optimizer: {learning_rate: 1e-3, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1,"
      << " max_grad_norm: 1.0}\n"
      << "scheduler: {type: constant}\n";
  return out.str();
}

void check_steps(const GoldenModel& golden, const fs::path& metrics) {
  const std::vector<float> losses = golden.floats("train.loss");
  const std::vector<float> norms = golden.floats("train.grad_norm");
  std::istringstream lines(read_text(metrics));
  size_t step = 0;
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    if (!row.contains("loss")) continue;
    REQUIRE(step < losses.size());
    CAPTURE(step);
    CHECK(std::abs(row["loss"].get<double>() / losses[step] - 1) <= 1e-4);
    CHECK(std::abs(row["grad_norm"].get<double>() / norms[step] - 1) <= 1e-4);
    ++step;
  }
  CHECK(step == losses.size());
}

std::map<std::string, std::vector<float>> exported_tensors(const GoldenModel& golden,
                                                           const fs::path& directory) {
  const checkpoint::HuggingFaceSource source(directory, golden.stored());
  std::map<std::string, std::vector<float>> canonical;
  for (const sharding::TensorInfo& info : source.tensors()) {
    const sharding::ShardSpec spec = sharding::whole_tensor(info.name, info.shape);
    at::Tensor values = at::empty({spec.global_numel()}, at::kFloat);
    source.read_slice(spec, 0, spec.global_numel(), values);
    const float* data = values.const_data_ptr<float>();
    canonical[info.name].assign(data, data + values.numel());
  }
  return as_stored(golden.stored(), canonical);
}

// Adam turns the rounding noise of a gradient that is nearly zero into whole steps: a few single
// elements may differ by up to ten steps' worth, all others must agree. The key part of a packed
// bias is such noise altogether, since a bias of the keys moves no probability.
void check_parameters(const GoldenModel& golden, const fs::path& directory) {
  for (const auto& [name, values] : exported_tensors(golden, directory)) {
    const std::vector<float> expected = golden.floats("final." + name);
    REQUIRE(values.size() == expected.size());
    const bool packed_bias = name.find("c_attn.bias") != std::string::npos;
    const size_t third = values.size() / 3;
    double squares = 0;
    double worst = 0;
    size_t far = 0;
    size_t compared = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      if (packed_bias && i >= third && i < 2 * third) continue;
      if (name.find("k_proj.bias") != std::string::npos) continue;
      const double difference = std::abs(static_cast<double>(values[i]) - expected[i]);
      REQUIRE(std::isfinite(difference));
      ++compared;
      worst = std::max(worst, difference);
      if (difference > 1e-4) {
        ++far;
      } else {
        squares += difference * difference;
      }
    }
    CAPTURE(name, worst, far, compared);
    CHECK(std::sqrt(squares / static_cast<double>(std::max<size_t>(1, compared))) <= 1e-5);
    CHECK(far <= compared / 2000);  // 0.05 % of the elements
    CHECK(worst <= 2e-3);
  }
}

void train_and_compare(const GoldenModel& golden, const Layout& layout) {
  CAPTURE(golden.name(), layout.tp, layout.dp, layout.zero_stage);
  Job job;
  write_rows(golden, job.directory() / "rows.jsonl");
  write_text(job.config(), run_file(golden, layout));
  const ProcessResult trained = job.run(layout.tp * layout.dp);
  INFO(trained.output);
  REQUIRE(trained.exit_code == 0);
  check_steps(golden, job.run_dir() / "metrics.jsonl");
  const ProcessResult exported = job.tool({"export", "--checkpoint", "run", "--out", "exported"});
  INFO(exported.output);
  REQUIRE(exported.exit_code == 0);
  check_parameters(golden, job.directory() / "exported");
}

}  // namespace

TEST_CASE("ten steps of the golden models are those of transformers", "[e2e][golden]") {
  const std::string defined = TPTRAIN_GOLDEN_MODELS;
  const std::vector<Layout> layouts =
      defined.empty()
          ? std::vector<Layout>{{1, 1, 0}, {2, 1, 1}, {4, 1, 1}, {1, 2, 3}, {2, 2, 2}, {4, 2, 3}}
          : std::vector<Layout>{{1, 1, 1}, {2, 2, 3}, {4, 1, 1}};
  for (const fs::path& directory : golden_directories(defined)) {
    const GoldenModel golden(directory);
    for (const Layout& layout : layouts) train_and_compare(golden, layout);
  }
}

}  // namespace tptrain::testing
