#include "zero/tp_gradient_sum.h"

#include <ATen/Functions.h>

#include "zero/layout.h"

namespace tptrain::zero {

TpGradientSum::TpGradientSum(const ParamBuckets& buckets, int block, comm::Communicator& tp)
    : tp_(tp) {
  if (tp.size() == 1) return;
  const TpRegion& region = buckets.tp_region(block);
  summed_ = region.whole;
  if (!region.staging.defined()) return;
  staging_ = region.staging;
  for (const CopiedSlice& copied : copied_slices(buckets.blocks()[block])) {
    const int64_t numel = copied.slice->spec.local_numel();
    const int64_t place = copied.staging_begin + copied.slice->copies.part * numel;
    places_.push_back(staging_.narrow(0, place, numel));
    gradients_.push_back(
        copied.parameter->main_grad.view({-1}).narrow(0, copied.slice->offset, numel));
  }
}

void TpGradientSum::run() {
  if (!summed_.defined()) return;
  if (staging_.defined()) {
    staging_.zero_();
    at::_foreach_copy_(places_, gradients_);
  }
  tp_.all_reduce(summed_, comm::ReduceOp::sum);
  if (staging_.defined()) at::_foreach_copy_(gradients_, places_);
}

}  // namespace tptrain::zero
