// What a step's gradient comes to, for whoever runs the step.
#pragma once

#include <ATen/core/Tensor.h>

namespace tptrain::zero {

/// Device values of one step: the host reads them when it likes.
struct StepNumbers {
  /// fp32 scalar: 2-norm of the whole gradient before clipping, every element once.
  at::Tensor norm;
  /// fp32 [k]: the losses given to clip(), summed over dp.
  at::Tensor losses;
  /// bool scalar, the same on every rank: false where a loss or a gradient (copies that the norm
  /// does not count included) of any rank is inf or nan.
  at::Tensor finite;
  /// bool scalar, the same on every rank: finite, and within the bounds of
  /// ZeroOptimizer::set_bounds(); the update is predicated on it.
  at::Tensor applied;
  /// int64 scalar, of this rank alone: the first parameter (as ParamBuckets::parameter_name counts)
  /// whose gradient was not finite here, before any rank's gradients were summed; -1: none; -2:
  /// this rank's loss was not finite.
  at::Tensor culprit;
};

}  // namespace tptrain::zero
