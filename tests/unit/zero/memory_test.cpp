// The forecast of memory is what is really allocated: counted by an allocator of our own.
#include "zero/memory.h"

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <map>

#include "support/catch.h"
#include "unit/zero/synthetic_model.h"

namespace tptrain::zero {
namespace {

using testing::Head;
using testing::synthetic_model;
using testing::SyntheticModel;

std::map<void*, size_t>& live() {
  static std::map<void*, size_t> blocks;
  return blocks;
}

class CountingAllocator final : public c10::Allocator {
 public:
  explicit CountingAllocator(c10::Allocator& real) : real_(real) {}
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr memory = real_.allocate(bytes);
    void* data = memory.get();
    if (data != nullptr) live()[data] = bytes;
    real_deleter() = memory.get_deleter();
    return {data, memory.release_context(), &release, memory.device()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    real_.copy_data(to, from, bytes);
  }
  static int64_t live_bytes() {
    int64_t total = 0;
    for (const auto& [memory, bytes] : live()) total += static_cast<int64_t>(bytes);
    return total;
  }

 private:
  static c10::DeleterFnPtr& real_deleter() {
    static c10::DeleterFnPtr deleter = nullptr;
    return deleter;
  }
  static void release(void* context) {
    live().erase(context);  // the CPU allocator's context is the memory itself
    if (real_deleter() != nullptr) real_deleter()(context);
  }
  c10::Allocator& real_;
};

struct Counted {
  Counted() : real(c10::GetCPUAllocator()), counting(*real) {
    c10::SetCPUAllocator(&counting, /*priority=*/255);
  }
  c10::Allocator* real;
  CountingAllocator counting;
};

}  // namespace

TEST_CASE("the forecast counts every byte that a rank allocates", "[zero]") {
  static Counted counted;  // stays: tensors may outlive the test
  for (const Head head : {Head::own_table, Head::tied}) {
    for (const int tp_size : {1, 2, 4}) {
      for (const int dp_size : {1, 2, 3, 8}) {
        for (const int stage : {0, 1, 2, 3}) {
          for (const bool per_micro_batch : {false, true}) {
            for (const int precision : {0, 1, 2, 3}) {
              const at::ScalarType dtype = precision == 0 ? at::kFloat : at::kBFloat16;
              const ParamBuckets::Options bucket_options{.dtype = dtype, .zero_stage = stage};
              ZeroOptimizer::Options options{.zero_stage = stage,
                                             .reduce_per_micro_batch = per_micro_batch};
              if (precision >= 2) options.reduce_dtype = at::kBFloat16;
              if (precision >= 2) options.optimizer.moments_dtype = "bf16";
              if (precision == 3) options.optimizer.master_dtype = "bf16";
              INFO("tp " << tp_size << " dp " << dp_size << " stage " << stage
                         << " per micro-batch " << per_micro_batch << " precision " << precision
                         << (head == Head::tied ? " tied" : ""));
              SyntheticModel model = synthetic_model(tp_size - 1, tp_size, head);
              const auto tp = comm::planning_communicator("tp", tp_size - 1, tp_size);
              const auto dp = comm::planning_communicator("dp", 0, dp_size);
              const int64_t before = CountingAllocator::live_bytes();
              ParamBuckets buckets(model.blocks, {.rank = 0, .size = dp_size}, bucket_options);
              ZeroOptimizer zero(buckets, *tp, *dp, options);
              const int64_t allocated = CountingAllocator::live_bytes() - before;
              const BucketMemory memory =
                  bucket_memory(model.blocks, dp_size, bucket_options, options);
              CHECK(memory.total() == allocated);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("each kind of memory shrinks from the stage on that shards it", "[zero]") {
  SyntheticModel model = synthetic_model(0, 4);
  const auto memory_of = [&](int stage) {
    return bucket_memory(model.blocks, 8, {.dtype = at::kBFloat16, .zero_stage = stage},
                         {.zero_stage = stage, .reduce_per_micro_batch = true});
  };
  const BucketMemory m0 = memory_of(0), m1 = memory_of(1), m2 = memory_of(2), m3 = memory_of(3);
  const int64_t all = m0.parameters / 2;
  CHECK(m0.gradients == 4 * all + 4 * all / 8);  // main_grad and the accumulating shard
  CHECK(m0.masters == 4 * all);
  CHECK(m0.moments == 8 * all);
  CHECK(m0.tp_staging == 3 * 4 * 96);  // three layers' k, v and biases, two parts each
  CHECK(m1.moments == m0.moments / 8);
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
