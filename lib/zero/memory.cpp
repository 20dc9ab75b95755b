// The sizes of layout.h times bytes, with the rules of state_layout.h.
#include "zero/memory.h"

#include <c10/core/ScalarType.h>

#include "zero/layout.h"
#include "zero/state_layout.h"

namespace tptrain::zero {
namespace {

constexpr int64_t kFp32 = 4, kBf16 = 2;

int64_t size_of(at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); }

}  // namespace

int64_t BucketMemory::total() const {
  return parameters + gradients + masters + moments + parameter_slots + gradient_slots +
         tp_staging + dp_staging + bookkeeping;
}

BucketMemory bucket_memory(const std::vector<sharding::ParameterBlock>& blocks, int dp_size,
                           const ParamBuckets::Options& buckets,
                           const ZeroOptimizer::Options& optimizer) {
  const StateLayout layout = state_layout(buckets, optimizer, dp_size);
  const std::vector<Bucket> laid_out = lay_out(blocks, dp_size);
  int64_t all = 0;
  for (const Bucket& bucket : laid_out) all += bucket.numel;
  const int64_t shard = all / dp_size;  // each bucket divides by dp_size
  const int64_t held = layout.holds_all ? all : shard;

  int64_t slots = 0, slots_and_staging = 0, staging = 0, parameters = 0;
  for (const HomeSize& slot : home_sizes(blocks, laid_out, Homes::shared)) {
    slots += slot.sharded + slot.replicated;
    slots_and_staging += slot.sharded + slot.replicated_and_staging;
  }
  for (const sharding::ParameterBlock& block : blocks) {
    staging += staging_numel(block);
    parameters += static_cast<int64_t>(block.parameters.size());
  }

  BucketMemory memory;
  if (layout.parameter_homes == Homes::shared) {
    memory.parameter_slots = slots * size_of(buckets.dtype);
  } else {
    memory.parameters = all * size_of(buckets.dtype);
  }
  if (layout.gradient_homes == Homes::shared) {
    memory.gradient_slots = slots_and_staging * kFp32;
  } else {
    memory.gradients = all * kFp32;
    memory.tp_staging = staging * kFp32;
  }
  if (layout.accumulates) memory.gradients += shard * kFp32;
  if (layout.own_masters) memory.masters = held * size_of(layout.master_dtype);
  memory.moments = 2 * held * size_of(layout.moments_dtype);
  if (layout.casts_for_reduction) memory.dp_staging = slots * kBf16;
  // A mark and an index of each parameter; learning rate, update count, clip factor, finite flag.
  memory.bookkeeping = parameters * (4 + 8) + 8 + 4 + 4 + 1;
  return memory;
}

}  // namespace tptrain::zero
