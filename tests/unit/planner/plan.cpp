// The plan of small decoders: every tensor's slices, the folded table, the forecast's arithmetic
// and its refusals.
#include "planner/plan.h"

#include <string>

#include "base/error.h"
#include "support/catch.h"

namespace tptrain::planner {
namespace {

model::DecoderConfig tiny() {
  return {.model_type = "llama",
          .vocab_size = 320,
          .hidden_size = 48,
          .intermediate_size = 96,
          .num_hidden_layers = 3,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 12};
}

const TensorPlan& tensor(const Plan& plan, const std::string& name) {
  for (const TensorPlan& t : plan.tensors) {
    if (t.name == name) return t;
  }
  FAIL("no tensor " << name);
  throw;
}

std::string refusal(const model::DecoderConfig& config, const Layout& layout) {
  try {
    make_plan(config, layout);
  } catch (const ConfigError& error) {
    CHECK(error.code() == ExitCode::config);
    return error.what();
  }
  return "no ConfigError";
}

TEST_CASE("every global tensor stands once, with its role and each tp rank's shape", "[planner]") {
  const Plan plan = make_plan(tiny(), {.tp_size = 2, .dp_size = 2});
  // Per layer 7 matrices and 2 norms; embedding, final norm, head.
  REQUIRE(plan.tensors.size() == 3 * 9 + 3);
  using Shapes = std::vector<std::vector<int64_t>>;
  const TensorPlan& embedding = tensor(plan, "model.embed_tokens.weight");
  CHECK(embedding.global_shape == std::vector<int64_t>{320, 48});
  CHECK(embedding.role == sharding::Role::vocab_parallel);
  CHECK(embedding.local_shapes == Shapes{{160, 48}, {160, 48}});
  const TensorPlan& k = tensor(plan, "model.layers.1.self_attn.k_proj.weight");
  CHECK(k.global_shape == std::vector<int64_t>{24, 48});
  CHECK(k.role == sharding::Role::column_parallel);
  CHECK(k.local_shapes == Shapes{{12, 48}, {12, 48}});
  const TensorPlan& down = tensor(plan, "model.layers.2.mlp.down_proj.weight");
  CHECK(down.role == sharding::Role::row_parallel);
  CHECK(down.local_shapes == Shapes{{48, 48}, {48, 48}});
  const TensorPlan& norm = tensor(plan, "model.norm.weight");
  CHECK(norm.role == sharding::Role::replicated);
  CHECK(norm.local_shapes == Shapes{{48}, {48}});
}

TEST_CASE("parameters count once over the model and with copies on a rank", "[planner]") {
  for (const bool tied : {false, true}) {
    for (const bool bias : {false, true}) {
      model::DecoderConfig config = tiny();
      config.tie_word_embeddings = tied;
      config.qkv_bias = bias;
      const Plan whole = make_plan(config, {});
      CHECK(whole.parameters == model::parameter_count(config));
      CHECK(whole.parameters_per_rank == whole.parameters);
      const Plan half = make_plan(config, {.tp_size = 2});
      const int64_t norms = (2 * 3 + 1) * 48;
      CHECK(half.parameters == whole.parameters);
      CHECK(half.parameters_per_rank == (whole.parameters - norms) / 2 + norms);
      CHECK(half.checkpoint_bytes == 12 * whole.parameters);
    }
  }
}

TEST_CASE("ZeRO 1 divides the moments and nothing else", "[planner]") {
  const Plan zero0 = make_plan(tiny(), {.dp_size = 4, .zero_stage = 0});
  const Plan zero1 = make_plan(tiny(), {.dp_size = 4, .zero_stage = 1});
  CHECK(zero0.memory.parameters == 4 * zero0.allocated_per_rank);
  CHECK(zero0.memory.gradients == zero0.memory.parameters);
  CHECK(zero0.memory.optimizer == 2 * zero0.memory.parameters);
  CHECK(zero1.memory.optimizer * 4 == zero0.memory.optimizer);
  CHECK(zero1.memory.parameters == zero0.memory.parameters);
  CHECK(zero1.memory.gradients == zero0.memory.gradients);
  CHECK(zero1.memory.activations == zero0.memory.activations);
}

TEST_CASE("an axis of one rank communicates nothing", "[planner]") {
  const Communication none = make_plan(tiny(), {}).communication;
  CHECK(none.tp_all_reduces_per_micro_batch == 0);
  CHECK(none.tp_all_reduce_bytes_per_micro_batch == 0);
  CHECK(none.dp_reduce_scatter_bytes_per_step == 0);
  CHECK(none.dp_all_gather_bytes_per_step == 0);
  CHECK(make_plan(tiny(), {.tp_size = 2}).communication.tp_all_reduces_per_micro_batch ==
        4 * 3 + 4);
  CHECK(make_plan(tiny(), {.dp_size = 2}).communication.tp_all_reduces_per_micro_batch == 0);
}

TEST_CASE("consecutive layers that are alike fold into one row group", "[planner]") {
  const std::vector<std::vector<int64_t>> shape = {{4, 2}};
  const auto layer = [&](int64_t number, std::vector<int64_t> global_shape) {
    return TensorPlan{.name = "model.layers." + std::to_string(number) + ".mlp.up_proj.weight",
                      .global_shape = std::move(global_shape),
                      .role = sharding::Role::column_parallel,
                      .local_shapes = shape};
  };
  const std::vector<TensorGroup> groups = fold_layers(
      {{.name = "model.embed_tokens.weight", .global_shape = {8, 2}, .local_shapes = shape},
       layer(0, {4, 2}),
       layer(1, {4, 2}),
       layer(2, {6, 2}),
       layer(3, {4, 2}),
       layer(5, {4, 2})});
  std::vector<std::string> names;
  for (const TensorGroup& group : groups) names.push_back(group.name);
  // Layer 2 has another shape; 3 and 5 are not neighbours.
  CHECK(names == std::vector<std::string>{
                     "model.embed_tokens.weight", "model.layers.{0..1}.mlp.up_proj.weight",
                     "model.layers.2.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight",
                     "model.layers.5.mlp.up_proj.weight"});
  CHECK(groups[1].count == 2);
}

TEST_CASE("the printed plan, to the letter", "[planner]") {
  const std::string text =
      to_text(make_plan(tiny(), {.tp_size = 2, .dp_size = 2, .seq_length = 128}));
  CHECK(text ==
        R"(model   llama: 3 layers, hidden 48, ffn 96, 4 heads of 12 (2 kv), vocabulary 320
layout  tp 2 x dp 2 = 4 ranks, ZeRO 1, sequences of 128 tokens, 1 a micro-batch

tensor                                               role             global shape  on a tp rank  parameters
model.embed_tokens.weight                            vocab-parallel   [320, 48]     [160, 48]         15,360
model.layers.{0..2}.input_layernorm.weight           replicated       [48]          [48]                 144
model.layers.{0..2}.self_attn.q_proj.weight          column-parallel  [48, 48]      [24, 48]           6,912
model.layers.{0..2}.self_attn.k_proj.weight          column-parallel  [24, 48]      [12, 48]           3,456
model.layers.{0..2}.self_attn.v_proj.weight          column-parallel  [24, 48]      [12, 48]           3,456
model.layers.{0..2}.self_attn.o_proj.weight          row-parallel     [48, 48]      [48, 24]           6,912
model.layers.{0..2}.post_attention_layernorm.weight  replicated       [48]          [48]                 144
model.layers.{0..2}.mlp.gate_proj.weight             column-parallel  [96, 48]      [48, 48]          13,824
model.layers.{0..2}.mlp.up_proj.weight               column-parallel  [96, 48]      [48, 48]          13,824
model.layers.{0..2}.mlp.down_proj.weight             row-parallel     [48, 96]      [48, 48]          13,824
model.norm.weight                                    replicated       [48]          [48]                  48
lm_head.weight                                       vocab-parallel   [320, 48]     [160, 48]         15,360
total                                                                                                 93,264
total on a rank                                                                                       46,800

memory of a rank
  parameters   182.81 KiB  fp32
  gradients    182.81 KiB  fp32
  optimizer    182.81 KiB  both moments of AdamW, fp32, a share of 1/2 (ZeRO 1)
  activations  747.50 KiB  estimate: what forward keeps for backward
  sum            1.27 MiB  temporary buffers and libraries come on top

communication of a rank (bytes of the full tensors)
  tp all-reduce      337.50 KiB  a micro-batch  16 calls, forward and backward
  dp reduce-scatter  182.81 KiB  a step         gradients
  dp all-gather      182.81 KiB  a step         updated parameters

checkpoint  1.07 MiB  master weights and both moments, fp32
)");
}

TEST_CASE("a tp size that does not divide is refused with those that do", "[planner]") {
  const std::string message = refusal(tiny(), {.tp_size = 3});
  CHECK(message.find("num_attention_heads is 4") != std::string::npos);
  CHECK(message.find("tp sizes that work for this model: 1, 2") != std::string::npos);
}

TEST_CASE("a layout out of its bounds is refused with every problem", "[planner]") {
  CHECK(
      refusal(
          tiny(),
          {.tp_size = 0, .dp_size = 0, .zero_stage = 2, .seq_length = 0, .micro_batch_size = -1}) ==
      "config error: tp_size is 0: it must be at least 1.\n"
      "config error: dp_size is 0: it must be at least 1.\n"
      "config error: seq_length is 0: it must be at least 1.\n"
      "config error: micro_batch_size is -1: it must be at least 1.\n"
      "config error: zero_stage is 2: it must be 0 or 1.");
}

}  // namespace
}  // namespace tptrain::planner
