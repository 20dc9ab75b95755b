// The declarations that ParamBuckets and ZeroOptimizer allocate by, times their bytes.
#include "zero/memory.h"

#include "zero/allocation.h"
#include "zero/bucket_state.h"
#include "zero/layout.h"
#include "zero/matrix_shares.h"
#include "zero/state_layout.h"

namespace tptrain::zero {

int64_t BucketMemory::total() const {
  return parameters + gradients + masters + slots + parameter_slots + gradient_slots + tp_staging +
         dp_staging + matrices + bookkeeping;
}

BucketMemory bucket_memory(const std::vector<parameters::ParameterBlock>& blocks, GridSize grid,
                           const ParamBuckets::Options& options, const Options& of_zero) {
  const StateLayout layout = state_layout(options, of_zero, grid.dp);
  const std::vector<Bucket> buckets =
      lay_out(blocks, grid.dp, options.rule, options.gradient_dtype, options.fp8_matrices);
  BucketMemory memory;
  // The store's buffers are of the parameters' type (ParameterStore).
  const Allocation data{.shape = {store_layout(blocks, buckets, layout.parameter_buffers).numel()},
                        .dtype = layout.parameter_dtype};
  const bool shares_data = layout.parameter_buffers == Buffers::shared;
  (shares_data ? memory.parameter_slots : memory.parameters) += data.bytes();
  const bool shares_gradients = layout.gradient_buffers == Buffers::shared;
  for (const GradientBuffer& buffer : gradient_buffers(blocks, buckets, layout.gradient_buffers)) {
    const int64_t bytes = buffer.of_sharded().bytes() + buffer.of_sharded_bf16().bytes() +
                          buffer.of_replicated().bytes();
    (shares_gradients ? memory.gradient_slots : memory.gradients) += bytes;
  }
  if (!shares_gradients) {  // shown by itself: it is of tp, and what is left is main_grad
    for (const parameters::ParameterBlock& block : blocks)
      memory.tp_staging += Allocation{.shape = {staging_numel(block)}, .dtype = at::kFloat}.bytes();
    memory.gradients -= memory.tp_staging;
  }
  for (const Bucket& bucket : buckets) {
    const BucketAllocations allocated = bucket_allocations(bucket, layout, grid.dp);
    if (allocated.master)
      (bucket.trains ? memory.masters : memory.parameters) += allocated.master->bytes();
    for (const Allocation& slot : allocated.slots) memory.slots += slot.bytes();
    if (allocated.grad_shard) memory.gradients += allocated.grad_shard->bytes();
    for (const auto& amax : {allocated.held_amax, allocated.gathered_amax, allocated.amax})
      if (amax) memory.bookkeeping += amax->bytes();
  }
  for (const SentAllocations& slot : sent_allocations(blocks, buckets, layout))
    memory.dp_staging += slot.sharded.bytes() + slot.replicated.bytes();
  memory.matrices =
      matrix_memory(buckets, matrix_grid(layout, grid.tp, grid.dp)).bytes(options.device);
  memory.bookkeeping += step_tensors(parameter_count(blocks)).bytes();
  return memory;
}

}  // namespace tptrain::zero
