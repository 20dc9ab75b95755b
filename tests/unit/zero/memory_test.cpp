// The forecast of memory is what is really allocated: counted by the allocator.
#include "zero/memory.h"

#include <ATen/ATen.h>

#include <map>
#include <string>

#include "kernels/cpu/counting_allocator.h"
#include "optim/update_rule.h"
#include "support/catch.h"
#include "unit/zero/mixed_slots_rule.h"
#include "unit/zero/synthetic_model.h"
#include "zero/state_layout.h"
#include "zero/zero_optimizer.h"

namespace tptrain::zero {
namespace {

using kernels::cpu::CountingAllocator;
using testing::Head;
using testing::synthetic_model;
using testing::SyntheticModel;

constexpr auto kRules = {config::OptimizerType::adamw, config::OptimizerType::lion,
                         config::OptimizerType::muon};

}  // namespace

TEST_CASE("the forecast counts every byte that a rank allocates", "[zero]") {
  const CountingAllocator& allocator = CountingAllocator::install();
  for (const Head head : {Head::own_table, Head::tied}) {
    for (const int tp_size : {1, 2, 4}) {
      for (const int dp_size : {1, 2, 3, 8}) {
        for (const int stage : {0, 1, 2, 3}) {
          for (const bool per_micro_batch : {false, true}) {
            for (const int precision : {0, 1, 2, 3, 4}) {
              const at::ScalarType dtype = precision == 0 ? at::kFloat : at::kBFloat16;
              ParamBuckets::Options bucket_options{.dtype = dtype, .zero_stage = stage};
              if (precision == 4 && (stage > 0 || !per_micro_batch))
                bucket_options.gradient_dtype = at::kBFloat16;
              ZeroOptimizer::Options options{.zero_stage = stage,
                                             .reduce_per_micro_batch = per_micro_batch};
              if (precision >= 2) options.reduce_dtype = at::kBFloat16;
              if (precision >= 2) options.optimizer.moments_dtype = config::Dtype::bf16;
              if (precision == 3) options.optimizer.master_dtype = config::Dtype::bf16;
              INFO("tp " << tp_size << " dp " << dp_size << " stage " << stage
                         << " per micro-batch " << per_micro_batch << " precision " << precision
                         << (head == Head::tied ? " tied" : ""));
              SyntheticModel model = synthetic_model(tp_size - 1, tp_size, head);
              const auto tp = comm::planning_communicator("tp", tp_size - 1, tp_size);
              const auto dp = comm::planning_communicator("dp", 0, dp_size);
              const int64_t before = allocator.live_bytes();
              ParamBuckets buckets(model.blocks, {.rank = 0, .size = dp_size}, bucket_options);
              ZeroOptimizer zero(buckets, *tp, *dp, options);
              const int64_t allocated = allocator.live_bytes() - before;
              const BucketMemory memory = bucket_memory(
                  model.blocks, {.tp = tp_size, .dp = dp_size}, bucket_options, options);
              CHECK(memory.total() == allocated);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("the forecast counts each slot in the type that the rule says", "[zero]") {
  const CountingAllocator& allocator = CountingAllocator::install();
  const testing::MixedSlotsRule rule;
  for (const int stage : {0, 1, 2, 3}) {
    for (const config::Dtype moments : {config::Dtype::fp32, config::Dtype::bf16}) {
      INFO("stage " << stage << ", " << config::word(moments));
      SyntheticModel model = synthetic_model(1, 2);
      const ParamBuckets::Options bucket_options{
          .dtype = at::kBFloat16, .zero_stage = stage, .rule = &rule};
      ZeroOptimizer::Options options{.zero_stage = stage};
      options.optimizer.moments_dtype = moments;
      const auto tp = comm::planning_communicator("tp", 1, 2);
      const auto dp = comm::planning_communicator("dp", 0, 3);
      const int64_t before = allocator.live_bytes();
      ParamBuckets buckets(model.blocks, {.rank = 0, .size = 3}, bucket_options);
      ZeroOptimizer zero(buckets, *tp, *dp, options);
      const int64_t allocated = allocator.live_bytes() - before;
      const BucketMemory memory =
          bucket_memory(model.blocks, {.tp = 2, .dp = 3}, bucket_options, options);
      CHECK(memory.total() == allocated);
      CHECK(memory.masters > 0);
      // fp32 masters lie beside the slots, element by element.
      CHECK(memory.slots == (moments == config::Dtype::bf16 ? 6 : 8) * (memory.masters / 4));
    }
  }
}

TEST_CASE("what is frozen takes its weights and nothing else, in every stage", "[zero]") {
  const CountingAllocator& allocator = CountingAllocator::install();
  for (const Head head : {Head::own_table, Head::tied}) {
    for (const int tp_size : {1, 4}) {
      for (const int dp_size : {1, 3}) {
        for (const int stage : {0, 1, 2, 3}) {
          for (const size_t trained : {size_t{0}, size_t{1}, size_t{4}}) {
            for (const auto rule : kRules) {
              INFO("tp " << tp_size << " dp " << dp_size << " stage " << stage << " every "
                         << trained << "th trains, " << config::word(rule));
              SyntheticModel model = synthetic_model(tp_size - 1, tp_size, head);
              for (size_t i = 0; i < model.parameters.size(); ++i)
                model.parameters[i]->trains = trained > 0 && i % trained == 0;
              const ParamBuckets::Options bucket_options{
                  .dtype = at::kBFloat16, .zero_stage = stage, .rule = &optim::update_rule(rule)};
              ZeroOptimizer::Options options{.zero_stage = stage};
              options.optimizer.type = rule;
              options.reduce_dtype = at::kBFloat16;
              const auto tp = comm::planning_communicator("tp", tp_size - 1, tp_size);
              const auto dp = comm::planning_communicator("dp", 0, dp_size);
              const int64_t before = allocator.live_bytes();
              ParamBuckets buckets(model.blocks, {.rank = 0, .size = dp_size}, bucket_options);
              if (trained == 0 && stage < 3) {
                int64_t numel = 0;
                for (const Bucket& bucket : buckets.buckets()) numel += bucket.numel;
                CHECK(allocator.live_bytes() - before == 2 * numel);
              }
              ZeroOptimizer zero(buckets, *tp, *dp, options);
              const int64_t allocated = allocator.live_bytes() - before;
              CHECK(bucket_memory(model.blocks, {.tp = tp_size, .dp = dp_size}, bucket_options,
                                  options)
                        .total() == allocated);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("handing the state out takes no memory, whatever it is kept in", "[zero]") {
  CountingAllocator& allocator = CountingAllocator::install();
  SyntheticModel model = synthetic_model(0, 1);
  for (const config::Dtype dtype : {config::Dtype::fp32, config::Dtype::bf16}) {
    for (const int stage : {0, 1, 2, 3}) {
      ParamBuckets buckets(model.blocks, {.rank = 0, .size = 1},
                           {.dtype = at::kBFloat16, .zero_stage = stage});
      const auto tp = comm::single_rank_communicator("tp");
      const auto dp = comm::single_rank_communicator("dp");
      ZeroOptimizer::Options options{.zero_stage = stage};
      options.optimizer.moments_dtype = dtype;
      options.optimizer.master_dtype = dtype;
      ZeroOptimizer zero(buckets, *tp, *dp, options);
      zero.state().initialise(1);
      const int64_t before = allocator.live_bytes();
      allocator.restart_peak();
      const sharding::StateDict state = zero.state().state_dict();
      CHECK(allocator.peak_bytes() == before);
      CHECK(state.pieces.size() > 0);
      zero.state().state_loaded(0);
      CHECK(allocator.peak_bytes() == before);
    }
  }
}

TEST_CASE("what is handed out as state is what the layout declares, kind by kind", "[zero]") {
  for (const auto rule : kRules) {
    for (const int stage : {0, 1, 2, 3}) {
      for (const size_t trained : {size_t{1}, size_t{3}}) {
        INFO(config::word(rule) << ", stage " << stage << ", every " << trained << "th trains");
        SyntheticModel model = synthetic_model(0, 1);
        for (size_t i = 0; i < model.parameters.size(); ++i)
          model.parameters[i]->trains = i % trained == 0;
        const ParamBuckets::Options bucket_options{
            .dtype = at::kBFloat16, .zero_stage = stage, .rule = &optim::update_rule(rule)};
        ZeroOptimizer::Options options{.zero_stage = stage};
        options.optimizer.type = rule;
        options.optimizer.moments_dtype = config::Dtype::bf16;
        const auto tp = comm::single_rank_communicator("tp");
        const auto dp = comm::single_rank_communicator("dp");
        ParamBuckets buckets(model.blocks, {.rank = 0, .size = 1}, bucket_options);
        ZeroOptimizer zero(buckets, *tp, *dp, options);
        const StateLayout layout = state_layout(bucket_options, options, 1);
        std::map<std::string, int64_t> declared, handed_out;
        for (const Bucket& bucket : buckets.buckets()) {
          for (const parameters::Parameter* parameter : bucket.parameters) {
            for (const StateTensor& tensor : state_tensors(bucket.trains, bucket.unit, layout))
              declared[tensor.kind] +=
                  parameter->numel() * static_cast<int64_t>(c10::elementSize(tensor.dtype));
          }
        }
        for (const sharding::StatePiece& piece : zero.state().state_dict().pieces)
          handed_out[piece.kind] += static_cast<int64_t>(piece.data.nbytes());
        CHECK(handed_out == declared);
      }
    }
  }
}

TEST_CASE("each kind of memory shrinks from the stage on that shards it", "[zero]") {
  SyntheticModel model = synthetic_model(0, 4);
  const auto memory_of = [&](int stage) {
    return bucket_memory(model.blocks, {.tp = 4, .dp = 8},
                         {.dtype = at::kBFloat16, .zero_stage = stage},
                         {.zero_stage = stage, .reduce_per_micro_batch = true});
  };
  const BucketMemory m0 = memory_of(0), m1 = memory_of(1), m2 = memory_of(2), m3 = memory_of(3);
  const int64_t all = m0.parameters / 2;
  CHECK(m0.gradients == 4 * all + 4 * all / 8);  // main_grad and the accumulating shard
  CHECK(m0.masters == 4 * all);
  CHECK(m0.slots == 8 * all);
  CHECK(m0.tp_staging == 3 * 4 * 96);  // three layers' k, v and biases, two parts each
  CHECK(m1.slots == m0.slots / 8);
  CHECK(m1.masters == m0.masters / 8);
  CHECK(m1.gradients == m0.gradients);
  CHECK(m2.gradients == 4 * all / 8);
  CHECK(m2.gradient_slots > 0);
  CHECK(m2.tp_staging == 0);
  CHECK(m2.parameters == m0.parameters);
  CHECK(m2.parameter_slots == 0);
  CHECK(m3.parameters == 0);
  CHECK(m3.parameter_slots > 0);
  CHECK(m3.masters == m2.masters);
  CHECK(m3.dp_staging == 0);
}

}  // namespace tptrain::zero
