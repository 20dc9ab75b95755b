// The plan of a public model: Qwen2.5-0.5B, from its config.json, against the published shapes.
// Needs TPTRAIN_TEST_DATA.
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "planner/plan.h"
#include "support/catch.h"

namespace tptrain::planner {
namespace {

std::filesystem::path model_directory() {
  const char* data = std::getenv("TPTRAIN_TEST_DATA");
  if (data == nullptr) {
    FAIL(
        "TPTRAIN_TEST_DATA is not set: it names the folder that holds models/Qwen2.5-0.5B (leave "
        "the test out with ctest -LE data)");
  }
  return std::filesystem::path(data) / "models" / "Qwen2.5-0.5B";
}

model::DecoderConfig qwen() {
  const auto path = model_directory() / "config.json";
  return model::decoder_config_from_json(read_file(path), path.string());
}

TEST_CASE("Qwen2.5-0.5B: names, shapes and count as published", "[planner][data]") {
  const auto published = nlohmann::json::parse(read_file(model_directory() / "shapes.json"));
  const Plan plan = make_plan(qwen(), {});
  CHECK(plan.parameters == published.at("parameters").get<int64_t>());  // 494,032,768
  CHECK(plan.tensors.size() == published.at("shapes").size());
  for (const TensorPlan& tensor : plan.tensors) {
    INFO(tensor.name);
    CHECK(published.at("shapes").at(tensor.name).get<std::vector<int64_t>>() ==
          tensor.global_shape);
  }
}

TEST_CASE("Qwen2.5-0.5B on tp 2 x dp 2 with ZeRO 1", "[planner][data]") {
  const Plan plan =
      make_plan(qwen(), {.tp_size = 2, .dp_size = 2, .zero_stage = 1, .seq_length = 512});
  // 24 layers fold: 9 matrices and norms and 3 biases a layer, embedding and final norm besides.
  CHECK(fold_layers(plan.tensors).size() == 12 + 2);
  // (494,032,768 - 49 norms of 896) / 2 + the norms, whole on every rank
  CHECK(plan.parameters_per_rank == (494032768 - 49 * 896) / 2 + 49 * 896);
  CHECK(plan.memory.parameters == 4 * plan.parameters_per_rank);  // nothing to pad at dp 2
  CHECK(plan.memory.optimizer == plan.memory.parameters);         // 2 moments / dp 2
  CHECK(plan.checkpoint_bytes == 12 * 494032768LL);
  CHECK(plan.communication.tp_all_reduces_per_micro_batch == 4 * 24 + 4);
  // 98 all-reduces of [512, 896] fp32 and 3 * 512 numbers of the cross entropy
  CHECK(plan.communication.tp_all_reduce_bytes_per_micro_batch == 4 * (98LL * 512 * 896 + 3 * 512));
}

TEST_CASE("Qwen2.5-0.5B refuses tp 4 and names tp 2", "[planner][data]") {
  try {
    make_plan(qwen(), {.tp_size = 4});
    FAIL("no error");
  } catch (const ConfigError& error) {
    const std::string message = error.what();
    CHECK(message.find("num_key_value_heads is 2") != std::string::npos);
    CHECK(message.find("tp sizes that work for this model: 1, 2") != std::string::npos);
  }
}

}  // namespace
}  // namespace tptrain::planner
