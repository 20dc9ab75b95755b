// The plan of small decoders: every tensor's slices, the folded table, the forecast's arithmetic
// and its refusals.
#include "planner/plan.h"

#include <string>

#include "base/error.h"
#include "support/catch.h"
#include "support/published_shapes.h"

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

const TensorPlan& tensor(const Plan& plan, const char* name) {
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

TEST_CASE("casts of weights to FP8 are counted where all tp ranks make them", "[planner]") {
  model::DecoderConfig config = tiny();
  config.hidden_size = 64;
  config.head_dim = 16;
  config.intermediate_size = 95;  // 48 on one rank, 47 on the other: no multiple of 16
  Layout layout = {.tp_size = 2};
  layout.dtype = at::kBFloat16;
  const auto buffers = [&](bool fp8) {
    layout.training.fp8.on = fp8;
    return make_plan(config, layout).memory[1].buffers;
  };
  const int64_t casts = buffers(true) - buffers(false);
  const int64_t of_attention = config.num_hidden_layers * (64 * 64 + 64 * 32);  // qkv and o
  CHECK(casts >= 2 * of_attention);
  CHECK(casts < 2 * of_attention + 1024);  // beside them largest magnitudes
}

TEST_CASE("every global tensor stands once, with its role and each tp rank's shape", "[planner]") {
  const Plan plan = make_plan(tiny(), {.tp_size = 2, .dp_size = 2});
  // Per layer 7 matrices and 2 norms; embedding, final norm, head.
  REQUIRE(plan.tensors.size() == 3 * 9 + 3);
  using Shapes = std::vector<std::vector<int64_t>>;
  const TensorPlan& embedding = tensor(plan, "model.embed_tokens.weight");
  CHECK(embedding.global_shape == std::vector<int64_t>{320, 48});
  CHECK(embedding.role == parameters::Role::vocab_parallel);
  CHECK(embedding.local_shapes == Shapes{{160, 48}, {160, 48}});
  const TensorPlan& k = tensor(plan, "model.layers.1.self_attn.k_proj.weight");
  CHECK(k.global_shape == std::vector<int64_t>{24, 48});
  CHECK(k.role == parameters::Role::column_parallel);
  CHECK(k.local_shapes == Shapes{{12, 48}, {12, 48}});
  const TensorPlan& down = tensor(plan, "model.layers.2.mlp.down_proj.weight");
  CHECK(down.role == parameters::Role::row_parallel);
  CHECK(down.local_shapes == Shapes{{48, 48}, {48, 48}});
  const TensorPlan& norm = tensor(plan, "model.norm.weight");
  CHECK(norm.role == parameters::Role::replicated);
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
      CHECK(checkpoint_bytes(config, half.layout) == half.checkpoint_bytes);
    }
  }
}

TEST_CASE("a save copies the state as it is kept, what is frozen as its weights alone",
          "[planner]") {
  Layout layout{.dtype = at::kBFloat16};
  layout.training.freeze = {"model.layers.0.*"};
  const Plan plan = make_plan(tiny(), layout);
  const int64_t frozen = plan.parameters - plan.trained_parameters;
  REQUIRE(frozen > 0);
  CHECK(plan.state_bytes == 2 * frozen + 12 * plan.trained_parameters);
  CHECK(plan.checkpoint_bytes == 4 * frozen + 12 * plan.trained_parameters);
}

TEST_CASE("each stage divides what it says over dp, and nothing else", "[planner]") {
  const Plan plan = make_plan(tiny(), {.dp_size = 4});
  const auto& [zero0, zero1, zero2, zero3] = plan.memory;
  CHECK(zero0.parameters == 4 * plan.allocated_per_rank);
  CHECK(zero0.gradients == zero0.parameters);
  CHECK(zero0.moments == 2 * zero0.parameters);
  CHECK(zero1.moments * 4 == zero0.moments);
  CHECK(zero1.parameters == zero0.parameters);
  CHECK(zero1.gradients == zero0.gradients);
  CHECK(zero1.buffers < 1024);  // flags and counters
  CHECK(zero2.moments == zero1.moments);
  CHECK(zero2.gradients * 4 == zero0.gradients);
  CHECK(zero2.parameters == zero0.parameters);
  CHECK(zero3.gradients == zero2.gradients);
  CHECK(zero3.parameters * 4 == zero0.parameters);
  // Gathered parameters beside the gradients.
  CHECK(zero3.buffers - zero1.buffers == 2 * (zero2.buffers - zero1.buffers));
  for (const MemoryPlan& memory : plan.memory) {
    CHECK(memory.masters == 0);  // fp32 parameters are their own masters
    CHECK(memory.activations == zero0.activations);
  }
}

TEST_CASE("bf16 halves the parameters and adds master weights", "[planner]") {
  const Plan fp32 = make_plan(tiny(), {.dp_size = 2});
  const Plan bf16 = make_plan(tiny(), {.dp_size = 2, .dtype = at::kBFloat16});
  for (int stage = 0; stage < 3; ++stage) {
    INFO("ZeRO " << stage);
    CHECK(bf16.memory[stage].parameters * 2 == fp32.memory[stage].parameters);
    CHECK(bf16.memory[stage].masters == fp32.memory[stage].moments / 2);
    CHECK(bf16.memory[stage].moments == fp32.memory[stage].moments);
    CHECK(bf16.memory[stage].gradients == fp32.memory[stage].gradients);
  }
  CHECK(bf16.memory[3].masters == fp32.memory[3].parameters);
  CHECK(bf16.memory[1].activations < fp32.memory[1].activations);
  const Plan small = make_plan(tiny(), {.dp_size = 2,
                                        .dtype = at::kBFloat16,
                                        .master_dtype = at::kBFloat16,
                                        .moments_dtype = at::kBFloat16});
  CHECK(small.memory[1].masters == 0);
  CHECK(small.memory[1].moments * 2 == bf16.memory[1].moments);
}

TEST_CASE("bf16 gradients of the layers' matrices take half of theirs, and travel as bf16",
          "[planner]") {
  for (const bool per_micro_batch : {false, true}) {
    const auto planned = [&](at::ScalarType gradients) {
      return make_plan(tiny(), {.dp_size = 2,
                                .reduce_per_micro_batch = per_micro_batch,
                                .dtype = at::kBFloat16,
                                .gradient_dtype = gradients});
    };
    const Plan fp32 = planned(at::kFloat), bf16 = planned(at::kBFloat16);
    INFO("per micro-batch " << per_micro_batch);
    // main_grad of stage 1 in either type, beside the shard that adds micro-batches up in fp32.
    const int64_t less = fp32.memory[1].gradients - bf16.memory[1].gradients;
    CHECK(less > 0);
    CHECK((fp32.memory[0].gradients == bf16.memory[0].gradients) == per_micro_batch);
    CHECK(fp32.memory[2].buffers > bf16.memory[2].buffers);
    CHECK(fp32.memory[2].gradients == bf16.memory[2].gradients);
    const auto sent = [](const Plan& plan) {
      return plan.communication.stages[1].dp_reduce_scatter.bytes;
    };
    CHECK(sent(fp32) - sent(bf16) == less);
  }
}

TEST_CASE("recompute and cut sequences take less for activations", "[planner]") {
  const auto activations = [](model::Recompute recompute,
                              tensor_parallel::SequenceParallel sequence) {
    return make_plan(tiny(), {.tp_size = 2,
                              .training = {.sequence_parallel = sequence, .recompute = recompute}})
        .memory[0]
        .activations;
  };
  using model::Recompute;
  using tensor_parallel::SequenceParallel;
  CHECK(activations(Recompute::selective, SequenceParallel::off) <
        activations(Recompute::none, SequenceParallel::off));
  CHECK(activations(Recompute::full, SequenceParallel::off) <
        activations(Recompute::selective, SequenceParallel::off));
  CHECK(activations(Recompute::none, SequenceParallel::on) <
        activations(Recompute::none, SequenceParallel::off));
}

TEST_CASE("an axis of one rank communicates nothing", "[planner]") {
  const Communication none = make_plan(tiny(), {}).communication;
  CHECK(none.tp.all_gather == Collective{});
  CHECK(none.tp.reduce_scatter == Collective{});
  CHECK(none.tp.all_reduce == Collective{});
  for (const StageCommunication& stage : none.stages) {
    CHECK(stage.tp_gradients == Collective{});
    CHECK(stage.dp_reduce_scatter == Collective{});
    CHECK(stage.dp_all_gather == Collective{});
  }
  CHECK(make_plan(tiny(), {.dp_size = 2}).communication.tp.all_reduce == Collective{});
  CHECK(make_plan(tiny(), {.tp_size = 2}).communication.stages[3].dp_all_gather == Collective{});
  CHECK(to_text(make_plan(tiny(), {})).find("communication of a rank: none") != std::string::npos);
}

TEST_CASE("the cadence decides how often gradients travel", "[planner]") {
  const Layout layout = {.tp_size = 2, .dp_size = 2, .micro_batches = 3};
  Layout often = layout;
  often.reduce_per_micro_batch = true;
  const auto once = make_plan(tiny(), layout).communication.stages;
  const auto thrice = make_plan(tiny(), often).communication.stages;
  for (const int stage : {0, 1}) {
    CHECK(thrice[stage].dp_reduce_scatter.bytes == 3 * once[stage].dp_reduce_scatter.bytes);
    CHECK(thrice[stage].tp_gradients.calls == 3 * once[stage].tp_gradients.calls);
    CHECK(thrice[stage].dp_all_gather == once[stage].dp_all_gather);
  }
  CHECK(once[2].dp_reduce_scatter == thrice[1].dp_reduce_scatter);
  CHECK(once[2].dp_all_gather == once[1].dp_all_gather);
  CHECK(once[3].dp_all_gather.bytes > once[2].dp_all_gather.bytes);
}

TEST_CASE("consecutive layers that are alike fold into one row group", "[planner]") {
  const std::vector<std::vector<int64_t>> shape = {{4, 2}};
  const auto layer = [&](int64_t number, std::vector<int64_t> global_shape) {
    return TensorPlan{.name = "model.layers." + std::to_string(number) + ".mlp.up_proj.weight",
                      .global_shape = std::move(global_shape),
                      .role = parameters::Role::column_parallel,
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
layout  tp 2 x dp 2 = 4 ranks, ZeRO 1, sequence parallelism
step    1 micro-batch of 1 sequence of 128 tokens a dp rank, fp32, recompute none

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
                   ZeRO 0    [ZeRO 1]      ZeRO 2      ZeRO 3
  parameters   194.81 KiB  194.81 KiB  194.81 KiB   97.41 KiB  fp32
  gradients    194.81 KiB  194.81 KiB   97.41 KiB   97.41 KiB  fp32
  moments      389.62 KiB  194.81 KiB  194.81 KiB  194.81 KiB  exp_avg and exp_avg_sq of adamw, fp32
  buffers           269 B       269 B  118.20 KiB  236.14 KiB  gradients and gathered parameters of the blocks at work
  activations  622.25 KiB  622.25 KiB  622.25 KiB  622.25 KiB  at their peak
  sum            1.37 MiB    1.18 MiB    1.20 MiB    1.22 MiB  libraries come on top

communication of a rank in a step (bytes of the full tensors)
                         ZeRO 0    [ZeRO 1]      ZeRO 2      ZeRO 3
  tp all-gather      480.00 KiB  480.00 KiB  480.00 KiB  480.00 KiB  activations, 20 calls a micro-batch
  tp reduce-scatter  336.00 KiB  336.00 KiB  336.00 KiB  336.00 KiB  activations, 14 calls a micro-batch
  tp all-reduce        1.50 KiB    1.50 KiB    1.50 KiB    1.50 KiB  activations, 2 calls a micro-batch
  tp all-reduce        1.31 KiB    1.31 KiB    1.31 KiB    1.31 KiB  gradients of what tp ranks share
  dp reduce-scatter  194.81 KiB  194.81 KiB  194.81 KiB  194.81 KiB  gradients
  dp all-gather      194.81 KiB  194.81 KiB  194.81 KiB  235.69 KiB  ZeRO 0: gradients, else parameters

checkpoint  1.07 MiB  master weights and the moments, fp32
            while it is written a copy of it is in the memory of the hosts: 273.23 KiB a rank (checkpoint.async)
)");
}

TEST_CASE("muon: what its matrices cost, keep and move", "[planner]") {
  const model::DecoderConfig half_billion = testing::qwen2_half_billion();
  Layout layout = {.dp_size = 2,
                   .seq_length = 2048,
                   .micro_batch_size = 8,
                   .micro_batches = 8,
                   .dtype = at::kBFloat16,
                   .update_rule = config::OptimizerType::muon};
  // Of a layer 2 m^2 (2 n + m) operations a matrix and step: 6.0e10, in all 7.2e12; of the
  // model 3.2e9 a token.
  CHECK(update_share(half_billion, layout) == Approx(0.0085).epsilon(0.02));
  const double share = update_share(half_billion, layout);
  layout.micro_batches = 1;
  CHECK(update_share(half_billion, layout) == Approx(8 * share));
  layout.zero_stage = 0;  // each dp rank for itself
  CHECK(update_share(half_billion, layout) == Approx(16 * share));
  layout.newton_schulz_steps = 10;
  CHECK(update_share(half_billion, layout) == Approx(32 * share));
  layout.update_rule = config::OptimizerType::adamw;
  CHECK(update_share(half_billion, layout) == 0.0);

  const Plan adamw = make_plan(tiny(), {.tp_size = 2, .dp_size = 2});
  const Plan muon =
      make_plan(tiny(), {.tp_size = 2, .dp_size = 2, .update_rule = config::OptimizerType::muon});
  const int64_t matrices = 3 * (2 * 48 * 48 + 2 * 24 * 48 + 3 * 96 * 48);
  CHECK(adamw.checkpoint_bytes - muon.checkpoint_bytes == 4 * matrices);
  CHECK(muon.memory[0].moments == adamw.memory[0].moments - 4 * matrices / 2);
  CHECK(muon.memory[1].moments == adamw.memory[1].moments - 4 * matrices / 4);
  // There and back, over dp what a tp rank holds, over tp what a dp rank's peers bring together.
  const Communication& moved = muon.communication;
  CHECK(moved.stages[1].dp_all_to_all.bytes == 2 * 4 * matrices / 2);
  CHECK(moved.stages[0].dp_all_to_all == Collective{});
  CHECK(moved.stages[0].tp_all_to_all.bytes == 2 * 4 * matrices);
  CHECK(adamw.communication.stages[1].tp_all_to_all == Collective{});
  const std::string text = to_text(muon);
  CHECK(text.find("update  muon: makes 21 matrices orthogonal, 5 Newton-Schulz steps each: ") !=
        std::string::npos);
  CHECK(text.find("  dp all-to-all") != std::string::npos);
  CHECK(to_text(adamw).find("update  ") == std::string::npos);
}

TEST_CASE("a tp size that does not work is refused with those that do", "[planner]") {
  const std::string message = refusal(tiny(), {.tp_size = 3});
  CHECK(message.find("num_key_value_heads is 2") != std::string::npos);
  CHECK(message.find("tp sizes that work for this model: 1, 2, 4") != std::string::npos);
}

TEST_CASE("a layout out of its bounds is refused with every problem", "[planner]") {
  CHECK(refusal(tiny(), {.tp_size = 0,
                         .dp_size = 0,
                         .zero_stage = 4,
                         .seq_length = 0,
                         .micro_batch_size = -1,
                         .micro_batches = 0}) ==
        "config error: tp_size is 0: it must be at least 1.\n"
        "config error: dp_size is 0: it must be at least 1.\n"
        "config error: seq_length is 0: it must be at least 1.\n"
        "config error: micro_batch_size is -1: it must be at least 1.\n"
        "config error: micro_batches is 0: it must be at least 1.\n"
        "config error: zero_stage is 4: it must be 0, 1, 2 or 3.");
}

}  // namespace
}  // namespace tptrain::planner
