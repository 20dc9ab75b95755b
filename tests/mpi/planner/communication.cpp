// The forecast of communication against the counters of a real step, to the
// byte: every axis, stage, cadence, recompute.
#include <ATen/ATen.h>

#include "comm/device_mesh.h"
#include "model/decoder.h"
#include "optim/update_rule.h"
#include "planner/plan.h"
#include "support/catch.h"
#include "support/mpi.h"
#include "zero/param_buckets.h"
#include "zero/zero_optimizer.h"

namespace tptrain::planner {
namespace {

using model::Recompute;
using tensor_parallel::SequenceParallel;
using testing::session;

// Sizes that no axis divides: heads, kv heads with copies at tp 4, vocabulary, sequence.
model::DecoderConfig odd_sizes(bool tied) {
  return {.model_type = "qwen2",
          .vocab_size = 261,
          .hidden_size = 30,
          .intermediate_size = 67,
          .num_hidden_layers = 5,
          .num_attention_heads = 6,
          .num_key_value_heads = 2,
          .head_dim = 10,
          .tie_word_embeddings = tied,
          .qkv_bias = true};
}

/// Whose linears FP8 takes on up to 4 tp ranks, but for those whose outputs are
/// `intermediate_size`.
model::DecoderConfig sizes_for_fp8() {
  model::DecoderConfig config = odd_sizes(true);
  config.hidden_size = 64;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 16;
  return config;
}

comm::CommCounters minus(const comm::CommCounters& a, const comm::CommCounters& b) {
  return {.all_reduces = a.all_reduces - b.all_reduces,
          .reduce_scatters = a.reduce_scatters - b.reduce_scatters,
          .all_gathers = a.all_gathers - b.all_gathers,
          .broadcasts = a.broadcasts - b.broadcasts,
          .all_to_alls = a.all_to_alls - b.all_to_alls,
          .bytes = a.bytes - b.bytes};
}

/// The second of two steps: without what is done once.
void check_layout(const model::DecoderConfig& config, Layout layout, int zero_stage) {
  layout.dp_size = session().size() / layout.tp_size;
  INFO("tp " << layout.tp_size << " dp " << layout.dp_size << " ZeRO " << zero_stage << " sequence "
             << (layout.training.sequence_parallel == SequenceParallel::on) << " recompute "
             << static_cast<int>(layout.training.recompute) << " per micro-batch "
             << layout.reduce_per_micro_batch << " " << layout.dtype << " tied "
             << config.tie_word_embeddings << " micro-batches " << layout.micro_batches << " of "
             << layout.micro_batch_size);
  comm::DeviceMesh mesh(
      session(),
      {.dp_size = static_cast<int>(layout.dp_size), .tp_size = static_cast<int>(layout.tp_size)},
      comm::DeviceType::cpu);
  const Communication planned = plan_of_rank(config, layout, mesh.tp_rank()).communication;
  const StageCommunication& stage = planned.stages[zero_stage];
  model::Decoder decoder(config, mesh.tp(), layout.training);
  zero::ParamBuckets buckets(decoder.blocks(),
                             {.rank = mesh.dp_rank(), .size = static_cast<int>(layout.dp_size)},
                             {.device = at::kCPU,
                              .dtype = layout.dtype,
                              .zero_stage = zero_stage,
                              .rule = &optim::update_rule(layout.update_rule),
                              .fp8_matrices = layout.training.fp8.over_dp(layout.dp_size)
                                                  ? zero::Fp8Matrices::apart
                                                  : zero::Fp8Matrices::with_others});
  config::OptimizerConfig rule;
  rule.type = layout.update_rule;
  zero::ZeroOptimizer optimizer(buckets, mesh.tp(), mesh.dp(),
                                {.zero_stage = zero_stage,
                                 .optimizer = rule,
                                 .reduce_per_micro_batch = layout.reduce_per_micro_batch,
                                 .reduce_dtype = layout.reduce_dtype});
  optimizer.state().initialise(1);
  const at::Tensor ids = at::zeros({layout.seq_length, layout.micro_batch_size}, at::kLong);
  comm::CommCounters tp, dp;
  for (int step = 0; step < 2; ++step) {
    const comm::CommCounters tp_before = mesh.tp().counters();
    const comm::CommCounters dp_before = mesh.dp().counters();
    optimizer.prepare_step(1e-3);
    optimizer.begin_step();
    decoder.weights_changed();
    at::Tensor losses = at::zeros({2});
    for (int64_t i = 0; i < layout.micro_batches; ++i) {
      optimizer.begin_micro_batch(i + 1 < layout.micro_batches ? zero::MicroBatchPlace::before_last
                                                               : zero::MicroBatchPlace::last,
                                  ids);
      losses.add_(decoder.forward_backward({.ids = ids, .targets = ids},
                                           at::scalar_tensor(1.0 / 96), optimizer));
    }
    optimizer.finish_reduction();
    tp = minus(mesh.tp().counters(), tp_before);  // with the update of the step before
    dp = minus(mesh.dp().counters(), dp_before);
    optimizer.clip(1.0, losses);  // its few words are not in the plan
    const comm::CommCounters norm_done = mesh.dp().counters();
    optimizer.update();
    const comm::CommCounters updated = minus(mesh.dp().counters(), norm_done);
    dp.all_gathers += updated.all_gathers;
    dp.bytes += updated.bytes;
  }
  const int64_t times = layout.micro_batches;
  // Of the dp ranks that send most; what is left after the rest was taken away is this rank's.
  const int64_t tp_all_to_all_bytes =
      tp.bytes -
      times * (planned.tp.all_gather.bytes + planned.tp.reduce_scatter.bytes +
               planned.tp.all_reduce.bytes) -
      stage.tp_gradients.bytes - stage.tp_fp8_scales.bytes;
  CHECK(tp_all_to_all_bytes >= 0);
  CHECK(session().max(tp_all_to_all_bytes) == stage.tp_all_to_all.bytes);
  CHECK(tp.all_gathers == times * planned.tp.all_gather.calls);
  CHECK(tp.reduce_scatters == times * planned.tp.reduce_scatter.calls);
  CHECK(tp.all_reduces ==
        times * planned.tp.all_reduce.calls + stage.tp_gradients.calls + stage.tp_fp8_scales.calls);
  CHECK(tp.all_to_alls == stage.tp_all_to_all.calls);
  CHECK(dp.all_to_alls == stage.dp_all_to_all.calls);
  CHECK(dp.reduce_scatters == stage.dp_reduce_scatter.calls);
  CHECK(dp.all_gathers == stage.dp_all_gather.calls);
  CHECK(dp.all_reduces == stage.dp_fp8_scales.calls);
  CHECK(dp.bytes == stage.dp_reduce_scatter.bytes + stage.dp_all_gather.bytes +
                        stage.dp_all_to_all.bytes + stage.dp_fp8_scales.bytes);
}

TEST_CASE("planned communication is what a step moves, to the call and the byte", "[planner]") {
  const Layout layout = {.seq_length = 15, .micro_batch_size = 2, .micro_batches = 3};
  for (int tp_size = 1; tp_size <= session().size(); tp_size *= 2) {
    for (int zero_stage = 0; zero_stage < kZeroStages; ++zero_stage) {
      Layout here = layout;
      here.tp_size = tp_size;
      for (const bool per_micro_batch : {false, true}) {
        for (const bool tied : {false, true}) {
          here.reduce_per_micro_batch = per_micro_batch;
          check_layout(odd_sizes(tied), here, zero_stage);
        }
      }
      here.update_rule = config::OptimizerType::muon;
      check_layout(odd_sizes(true), here, zero_stage);
      here.update_rule = config::OptimizerType::adamw;
      here.dtype = at::kBFloat16;
      here.reduce_dtype = at::kBFloat16;
      here.training.recompute = Recompute::selective;
      check_layout(odd_sizes(true), here, zero_stage);
      here.training.fp8.on = true;
      check_layout(sizes_for_fp8(), here, zero_stage);
    }
    Layout here = layout;
    here.tp_size = tp_size;
    here.micro_batches = 1;  // in an untied table there is nothing but the look-up's rows
    for (const bool tied : {false, true}) check_layout(odd_sizes(tied), here, 1);
    here.micro_batch_size = 5;  // more rows than half of the table
    for (const bool tied : {false, true}) check_layout(odd_sizes(tied), here, 2);
    here = layout;
    here.tp_size = tp_size;
    for (const SequenceParallel sequence : {SequenceParallel::off, SequenceParallel::on}) {
      for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
        here.training = {.sequence_parallel = sequence, .recompute = recompute};
        check_layout(odd_sizes(false), here, 1);
      }
    }
  }
}

TEST_CASE("what FP8 gathers in bytes, and the scales it exchanges, are in the plan", "[planner]") {
  Layout layout = {.seq_length = 15, .micro_batch_size = 2, .micro_batches = 2};
  layout.dtype = at::kBFloat16;
  model::DecoderConfig even = sizes_for_fp8(), narrow = even;
  even.intermediate_size = 192;
  narrow.intermediate_size = 200;  // of a rank 100 or 50: no multiple of 16
  for (int tp_size = 1; tp_size <= session().size(); tp_size *= 2) {
    layout.tp_size = tp_size;
    for (const int zero_stage : {1, 3}) {
      for (const SequenceParallel sequence : {SequenceParallel::off, SequenceParallel::on}) {
        if (zero_stage == 3 && sequence == SequenceParallel::off) continue;
        for (const Recompute recompute : {Recompute::none, Recompute::full}) {
          layout.training = {.sequence_parallel = sequence, .recompute = recompute};
          layout.training.fp8 = {
              .on = true, .all_gather = true, .first_in_bf16 = 1, .keep_weights = zero_stage < 3};
          check_layout(even, layout, zero_stage);
        }
        layout.training.freeze = {"*.down_proj.*"};
        check_layout(even, layout, zero_stage);
        layout.training.freeze = {};
        check_layout(narrow, layout, zero_stage);
        layout.training.freeze = {"model.embed_tokens.*", "model.layers.0.*", "model.layers.1.*"};
        check_layout(even, layout, zero_stage);
      }
    }
  }
}

TEST_CASE("what is frozen moves as little as planned, beside adapters too", "[planner]") {
  Layout layout = {.seq_length = 15, .micro_batch_size = 2, .micro_batches = 2};
  for (int tp_size = 1; tp_size <= session().size(); tp_size *= 2) {
    layout.tp_size = tp_size;
    for (int zero_stage = 0; zero_stage < kZeroStages; ++zero_stage) {
      for (const SequenceParallel sequence : {SequenceParallel::off, SequenceParallel::on}) {
        for (const Recompute recompute : {Recompute::none, Recompute::full}) {
          layout.training = {.sequence_parallel = sequence, .recompute = recompute};
          layout.training.adapter = config::AdapterConfig{.rank = 3};
          check_layout(odd_sizes(true), layout, zero_stage);
          layout.training.adapter->targets = {"down_proj"};  // of the first layer it is the lowest
          check_layout(odd_sizes(false), layout, zero_stage);
          layout.training.adapter.reset();
          for (const std::vector<std::string>& globs :
               {std::vector<std::string>{"model.embed_tokens.*", "model.layers.0.*",
                                         "model.layers.1.*"},
                {"model.embed_tokens.*", "model.layers.0.*", "*.self_attn.*",
                 "*.input_layernorm.*"},
                {"model.embed_tokens.*", "model.layers.*"}}) {
            layout.training.freeze = globs;
            check_layout(odd_sizes(false), layout, zero_stage);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace tptrain::planner
