// model.freeze: what globs leave to train, and what is refused of them.
#include "model/freeze.h"

#include "comm/communicator.h"
#include "model/decoder.h"
#include "support/catch.h"

namespace tptrain::model {
namespace {

DecoderConfig tiny() {
  return {.model_type = "qwen2",
          .vocab_size = 32,
          .hidden_size = 16,
          .intermediate_size = 24,
          .num_hidden_layers = 2,
          .num_attention_heads = 2,
          .num_key_value_heads = 2,
          .head_dim = 8,
          .qkv_bias = true};
}

std::vector<std::string> frozen_by(const std::vector<std::string>& globs) {
  const auto tp = comm::planning_communicator("tp", 0, 1);
  const Decoder decoder(tiny(), *tp, {.freeze = globs});
  std::vector<std::string> frozen;
  for (const parameters::Parameter* parameter : decoder.parameters()) {
    if (!parameter->trains) frozen.push_back(parameter->name);
  }
  return frozen;
}

int first_training(const std::vector<std::string>& globs) {
  const auto tp = comm::planning_communicator("tp", 0, 1);
  return Decoder(tiny(), *tp, {.freeze = globs}).first_training_block();
}

std::string problem_with(const std::vector<std::string>& globs) {
  const std::vector<Problem> problems = check_freeze(tiny(), globs);
  return problems.empty() ? "none" : ConfigError(problems).what();
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("globs freeze whole parameters, and the first block that trains follows from them") {
  CHECK(frozen_by({}).empty());
  CHECK(frozen_by({"*layernorm.weight"}).size() == 4);
  CHECK(frozen_by({"lm_head.weight", "model.norm.*"}) ==
        std::vector<std::string>{"model.norm.weight", "lm_head.weight"});
  CHECK(frozen_by({"model.layers.1.self_attn.?_proj.weight"}).size() == 2);  // qkv and o
  CHECK(first_training({}) == 0);
  CHECK(first_training({"model.embed_tokens.weight"}) == 1);
  CHECK(first_training({"model.embed*", "model.layers.0.*"}) == 2);
  CHECK(first_training({"model.embed*", "model.layers.*"}) == 3);
  CHECK(first_training({"*"}) == 4);
}

TEST_CASE("globs that cannot be meant are refused by name") {
  CHECK(problem_with({"model.embed*", "*.bias"}) == "none");
  const std::string unknown = problem_with({"*.bias", "layers.0.*"});
  CHECK(has(unknown, "model.freeze[1] is \"layers.0.*\", which fits no tensor of the model"));
  CHECK(has(unknown, "the first is model.embed_tokens.weight"));
  const std::string part = problem_with({"*.k_proj.weight"});
  CHECK(has(part,
            "model.freeze fits some of model.layers.0.self_attn.q_proj.weight and "
            "model.layers.0.self_attn.k_proj.weight and model.layers.0.self_attn.v_proj.weight"));
  CHECK(has(part, "must fit all of them or none"));
  CHECK(has(problem_with({"*"}), "model.freeze fits every tensor of the model: it must leave"));
}

}  // namespace tptrain::model
