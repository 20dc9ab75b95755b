// The forecast of a whole rank against the peak of real optimizer steps: buckets, ZeRO and decoder
// together, in shapes where parameters, activations or logits dominate.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "comm/communicator.h"
#include "kernels/cpu/counting_allocator.h"
#include "model/decoder.h"
#include "planner/plan.h"
#include "support/catch.h"
#include "zero/param_buckets.h"
#include "zero/zero_optimizer.h"

namespace tptrain::planner {
namespace {

using kernels::cpu::CountingAllocator;
using model::Recompute;

struct Shape {
  const char* name;
  model::DecoderConfig config;
  int64_t seq_length;
};

std::vector<Shape> shapes() {
  const model::DecoderConfig small = {.model_type = "qwen2",
                                      .vocab_size = 259,
                                      .hidden_size = 60,
                                      .intermediate_size = 134,
                                      .num_hidden_layers = 3,
                                      .num_attention_heads = 6,
                                      .num_key_value_heads = 2,
                                      .head_dim = 12,
                                      .tie_word_embeddings = true,
                                      .qkv_bias = true};
  model::DecoderConfig wide = small;
  wide.hidden_size = 250;
  wide.intermediate_size = 700;
  wide.tie_word_embeddings = false;
  model::DecoderConfig wide_vocab = small;
  wide_vocab.vocab_size = 8001;
  return {{"parameters", wide, 16}, {"activations", small, 300}, {"logits", wide_vocab, 300}};
}

/// Bytes alive at most in two steps on one rank.
int64_t measured_peak(const model::DecoderConfig& config, const Layout& layout, int zero_stage) {
  CountingAllocator& allocator = CountingAllocator::install();
  const int64_t before = allocator.live_bytes();
  const auto tp = comm::single_rank_communicator("tp");
  const auto dp = comm::single_rank_communicator("dp");
  model::Decoder decoder(config, *tp, layout.training);
  zero::ParamBuckets buckets(decoder.blocks(), {.rank = 0, .size = 1},
                             {.device = at::kCPU, .dtype = layout.dtype, .zero_stage = zero_stage});
  zero::ZeroOptimizer optimizer(
      buckets, *tp, *dp,
      {.zero_stage = zero_stage, .reduce_per_micro_batch = layout.reduce_per_micro_batch});
  optimizer.state().initialise(1);
  allocator.restart_peak();
  const at::Tensor ids =
      at::randint(config.vocab_size, {layout.seq_length, layout.micro_batch_size}, at::kLong);
  const at::Tensor targets = ids.clone();
  for (int step = 0; step < 2; ++step) {
    optimizer.prepare_step(1e-3);
    optimizer.begin_step();
    at::Tensor losses = at::zeros({2});
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
      losses.add_(decoder.forward_backward({.ids = ids, .targets = targets},
                                           at::scalar_tensor(1e-3), optimizer));
    }
    optimizer.finish_reduction();
    optimizer.clip(1.0, losses);
    optimizer.update();
  }
  return allocator.peak_bytes() - before;
}

TEST_CASE("a rank's planned memory is the peak of real steps", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
        for (const bool per_micro_batch : {false, true}) {
          const Layout layout = {.seq_length = shape.seq_length,
                                 .micro_batch_size = 2,
                                 .micro_batches = 2,
                                 .reduce_per_micro_batch = per_micro_batch,
                                 .training = {.recompute = recompute},
                                 .dtype = dtype};
          const Plan plan = make_plan(shape.config, layout);
          for (int stage = 0; stage < kZeroStages; ++stage) {
            INFO(shape.name << ", " << dtype << ", recompute " << static_cast<int>(recompute)
                            << ", per micro-batch " << per_micro_batch << ", ZeRO " << stage);
            const auto measured = static_cast<double>(measured_peak(shape.config, layout, stage));
            CHECK(static_cast<double>(plan.memory[stage].total()) ==
                  testing::Approx(measured).epsilon(0.02));
          }
        }
      }
    }
  }
}

TEST_CASE("what is frozen leaves the planned memory as it leaves the real one", "[planner]") {
  at::set_num_threads(1);
  const Shape shape = shapes().front();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const Recompute recompute : {Recompute::none, Recompute::full}) {
      Layout layout = {.seq_length = shape.seq_length,
                       .micro_batch_size = 2,
                       .micro_batches = 2,
                       .reduce_per_micro_batch = true,
                       .training = {.recompute = recompute},
                       .dtype = dtype};
      const Plan all = make_plan(shape.config, layout);
      // The table and the first layer; all products; all but the last norm.
      for (const std::vector<std::string>& globs :
           {std::vector<std::string>{"model.embed_tokens.*", "model.layers.0.*"},
            {"*_proj.weight"},
            {"model.embed_tokens.*", "model.layers.*", "lm_head.*"}}) {
        layout.training.freeze = globs;
        const Plan plan = make_plan(shape.config, layout);
        for (int stage = 0; stage < kZeroStages; ++stage) {
          INFO(dtype << ", recompute " << static_cast<int>(recompute) << ", ZeRO " << stage << ", "
                     << globs.front());
          const auto measured = static_cast<double>(measured_peak(shape.config, layout, stage));
          CHECK(static_cast<double>(plan.memory[stage].total()) ==
                testing::Approx(measured).epsilon(0.03));
          CHECK(plan.memory[stage].total() < all.memory[stage].total());
        }
      }
    }
  }
}

TEST_CASE("a rank's planned memory with adapters is the peak of real steps", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      for (const Recompute recompute : {Recompute::none, Recompute::full}) {
        for (const std::vector<std::string>& saved : {std::vector<std::string>{}, {"lm_head"}}) {
          const Layout layout = {
              .seq_length = shape.seq_length,
              .micro_batch_size = 2,
              .micro_batches = 2,
              .reduce_per_micro_batch = true,
              .training = {.recompute = recompute,
                           .adapter = config::AdapterConfig{.rank = 8, .modules_to_save = saved}},
              .dtype = dtype};
          const Plan plan = make_plan(shape.config, layout);
          for (int stage = 0; stage < kZeroStages; ++stage) {
            INFO(shape.name << ", " << dtype << ", recompute " << static_cast<int>(recompute)
                            << ", ZeRO " << stage << ", saved " << saved.size());
            const auto measured = static_cast<double>(measured_peak(shape.config, layout, stage));
            CHECK(static_cast<double>(plan.memory[stage].total()) ==
                  testing::Approx(measured).epsilon(0.03));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace tptrain::planner
