// The sizes of layout.h times bytes, with the rules of state_layout.h.
#include "zero/memory.h"

#include <c10/core/ScalarType.h>

#include "optim/update_rule.h"
#include "zero/layout.h"
#include "zero/matrix_shares.h"
#include "zero/state_layout.h"

namespace tptrain::zero {
namespace {

constexpr int64_t kFp32 = 4, kBf16 = 2;

int64_t size_of(at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); }

}  // namespace

int64_t BucketMemory::total() const {
  return parameters + gradients + masters + slots + parameter_slots + gradient_slots + tp_staging +
         dp_staging + matrices + bookkeeping;
}

BucketMemory bucket_memory(const std::vector<parameters::ParameterBlock>& blocks, GridSize grid,
                           const ParamBuckets::Options& buckets, const Options& options) {
  const int dp_size = grid.dp;
  const StateLayout layout = state_layout(buckets, options, dp_size);
  const std::vector<Bucket> laid_out =
      lay_out(blocks, dp_size, buckets.rule, buckets.gradient_dtype);
  int64_t all = 0, frozen = 0, slots = 0, gradients = 0;
  for (const Bucket& bucket : laid_out) {
    (bucket.trains ? all : frozen) += bucket.numel;
    if (bucket.trains) gradients += bucket.numel * size_of(bucket.gradient_dtype);
    if (bucket.trains)
      slots += bucket.numel * static_cast<int64_t>(layout.rule->slots(bucket.unit).size());
  }
  const int64_t data = store_layout(blocks, laid_out, layout.parameter_buffers).numel();
  const int64_t shard = all / dp_size;  // each bucket divides by dp_size
  const int64_t held = layout.holds_all ? all : shard;

  int64_t gradient_slots = 0, sent = 0, staging = 0, parameters = 0;
  for (const GradientBuffer& slot : gradient_buffers(blocks, laid_out, Buffers::shared)) {
    gradient_slots += slot.bytes();
    sent += slot.sharded + slot.replicated;
  }
  for (const parameters::ParameterBlock& block : blocks) {
    staging += staging_numel(block);
    parameters += static_cast<int64_t>(block.parameters.size());
  }

  BucketMemory memory;
  if (layout.parameter_buffers == Buffers::shared) {
    memory.parameter_slots = data * size_of(buckets.dtype);
    memory.parameters = frozen / dp_size * size_of(buckets.dtype);
  } else {
    memory.parameters = data * size_of(buckets.dtype);
  }
  if (layout.gradient_buffers == Buffers::shared) {
    memory.gradient_slots = gradient_slots;
  } else {
    memory.gradients = gradients;
    memory.tp_staging = staging * kFp32;
  }
  if (layout.accumulates) memory.gradients += shard * kFp32;
  if (layout.own_masters) memory.masters = held * size_of(layout.master_dtype);
  memory.slots = (layout.holds_all ? slots : slots / dp_size) * size_of(layout.slots_dtype);
  if (layout.casts_for_reduction) memory.dp_staging = sent * kBf16;
  const MatrixGrid of_matrices = matrix_grid(layout, grid.tp, dp_size);
  memory.matrices = matrix_memory(laid_out, of_matrices).bytes(buckets.device);
  // A mark and an index of each parameter; learning rate, update count, clip factor, finite flag.
  memory.bookkeeping = parameters * (4 + 8) + 8 + 4 + 4 + 1;
  return memory;
}

}  // namespace tptrain::zero
