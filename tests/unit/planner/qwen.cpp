// The plan of a public model: Qwen2.5-0.5B, from its config.json, against the published shapes.
// Needs TPTRAIN_TEST_DATA.
#include <algorithm>
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
  const MemoryPlan& zero1 = plan.memory[1];
  CHECK(zero1.parameters == 4 * plan.parameters_per_rank);  // nothing to pad at dp 2
  CHECK(zero1.moments == zero1.parameters);                 // 2 moments / dp 2
  CHECK(plan.memory[3].parameters == zero1.parameters / 2);
  CHECK(plan.checkpoint_bytes == 12 * 494032768LL);
  const TpCommunication& tp = plan.communication.tp;
  CHECK(tp.all_gather == Collective{.calls = 6 * 24 + 2, .bytes = 4LL * 146 * 512 * 896});
  CHECK(tp.reduce_scatter == Collective{.calls = 4 * 24 + 2, .bytes = 4LL * 98 * 512 * 896});
  CHECK(tp.all_reduce == Collective{.calls = 2, .bytes = 4 * 3 * 512});
}

TEST_CASE("Qwen2.5-0.5B has 2 kv heads, and tp 4 holds each twice", "[planner][data]") {
  const Plan plan = make_plan(qwen(), {.tp_size = 4});
  // 14 query heads over 4 ranks: 4, 3, 4, 3; and 4864 ffn columns, 151936 rows.
  const auto q_proj =
      std::ranges::find(plan.tensors, "model.layers.7.self_attn.q_proj.weight", &TensorPlan::name);
  REQUIRE(q_proj != plan.tensors.end());
  CHECK(q_proj->local_shapes ==
        std::vector<std::vector<int64_t>>{{256, 896}, {192, 896}, {256, 896}, {192, 896}});
  CHECK(plan.communication.stages[1].tp_gradients.calls == 24 + 1);  // layers, and the head's norm
}

TEST_CASE("Qwen2.5-0.5B refuses tp 5 and names those that work", "[planner][data]") {
  try {
    make_plan(qwen(), {.tp_size = 5});
    FAIL("no error");
  } catch (const ConfigError& error) {
    const std::string message = error.what();
    CHECK(message.find("num_key_value_heads is 2") != std::string::npos);
    CHECK(message.find("tp sizes that work for this model: 1, 2, 4, ") != std::string::npos);
  }
}

}  // namespace
}  // namespace tptrain::planner
