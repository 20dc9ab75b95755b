// The sum over tp of what a block's backward leaves as shares on the tp ranks: partial gradients of
// replicated parameters, and the copies of slices that several ranks hold. One collective a block,
// before anything goes over dp.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comm/communicator.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

class TpGradientSum {
 public:
  /// `buckets` and `tp` must outlive it.
  TpGradientSum(const ParamBuckets& buckets, int block, comm::Communicator& tp);

  /// Collective over tp where the block has something to sum.
  void run();

 private:
  comm::Communicator& tp_;
  at::Tensor summed_;  // one range of memory; undefined: nothing
  at::Tensor staging_;
  std::vector<at::Tensor> gradients_;  // of copied slices
  std::vector<at::Tensor> places_;  // where this rank puts them in the staging, and finds the sums
};

}  // namespace tptrain::zero
