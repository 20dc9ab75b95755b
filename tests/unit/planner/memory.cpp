// The forecast against what a real decoder takes: the buckets' allocation exactly, the saved
// activations as the allocator counts them.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdlib>

#include "comm/communicator.h"
#include "model/decoder.h"
#include "planner/plan.h"
#include "support/catch.h"
#include "zero/param_buckets.h"

namespace tptrain::planner {
namespace {

model::DecoderConfig odd_sizes() {
  // Sizes that leave padding at dp 4 and 8: norms of 30 elements, biases.
  return {.model_type = "qwen2",
          .vocab_size = 258,
          .hidden_size = 30,
          .intermediate_size = 66,
          .num_hidden_layers = 3,
          .num_attention_heads = 6,
          .num_key_value_heads = 2,
          .head_dim = 10,
          .tie_word_embeddings = true,
          .qkv_bias = true};
}

/// Bytes that this thread has allocated on the CPU and not yet freed, since `reset`.
class LiveBytes final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    bytes_ += size;
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

struct SilentObserver final : tensor_parallel::BlockObserver {
  void before_forward(int) override {}
  void after_forward(int) override {}
  void before_backward(int) override {}
  void after_backward(int) override {}
};

TEST_CASE("the planned parameter memory is what the buckets allocate", "[planner]") {
  for (const int tp_size : {1, 2}) {
    for (const int dp_size : {1, 2, 4, 8}) {
      const Plan plan = make_plan(odd_sizes(), {.tp_size = tp_size, .dp_size = dp_size});
      int64_t largest = 0;
      for (int rank = 0; rank < tp_size; ++rank) {
        const auto tp = comm::planning_communicator("tp", rank, tp_size);
        const model::Decoder decoder(odd_sizes(), *tp);
        const zero::ParamBuckets buckets(decoder.blocks(), {.rank = 0, .size = dp_size}, at::kCPU);
        int64_t numel = 0;
        for (const zero::Bucket& bucket : buckets.buckets()) numel += bucket.data.numel();
        largest = std::max(largest, numel);
      }
      CHECK(plan.allocated_per_rank == largest);
      CHECK(plan.memory.parameters == 4 * largest);
      CHECK(plan.allocated_per_rank >= plan.parameters_per_rank);
    }
  }
}

TEST_CASE("the planned activations are what forward keeps for backward", "[planner]") {
  at::set_num_threads(1);
  const auto tp = comm::single_rank_communicator("tp");
  for (const int64_t layers : {1, 3}) {
    for (const int64_t sequences : {1, 2}) {
      model::DecoderConfig config = odd_sizes();
      config.num_hidden_layers = layers;
      const int64_t seq_length = 128;
      model::Decoder decoder(config, *tp);
      const zero::ParamBuckets buckets(decoder.blocks(), {.rank = 0, .size = 1}, at::kCPU);
      const at::Tensor ids = at::zeros({seq_length, sequences}, at::kLong);
      const at::Tensor weight = at::ones({}, at::kFloat);
      SilentObserver observer;
      decoder.loss(ids, ids, weight, observer);  // makes what is made once: the rotary table

      const auto live = std::make_shared<LiveBytes>();
      at::Tensor loss;
      {
        const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
        loss = decoder.loss(ids, ids, weight, observer);
      }
      const Plan plan =
          make_plan(config, {.seq_length = seq_length, .micro_batch_size = sequences});
      // Besides: ids of the tokens (the decoder's own copies) and scalars.
      const int64_t planned = plan.memory.activations;
      CHECK(live->bytes() >= planned);
      CHECK(live->bytes() <= planned + planned / 50);
    }
  }
}

}  // namespace
}  // namespace tptrain::planner
