// The one norm of a step's reduced gradient, over all shards of all ranks; whether every number of
// the step was finite; and if not, whose it was. Made without the host.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"
#include "zero/gradient_norm.h"
#include "zero/gradient_reducer.h"
#include "zero/product_squares.h"
#include "zero/step_numbers.h"

namespace tptrain::zero {

class GlobalNorm {
 public:
  /// All must outlive it.
  GlobalNorm(const ParamBuckets& buckets, const std::vector<BucketState>& states,
             const GradientReducer& reducer, comm::Communicator& tp, comm::Communicator& dp);

  /// After the reduction. local_losses: fp32 [k], this dp rank's, the same on its tp ranks. Both
  /// axes exchange a few words, once. Collective over dp and tp.
  StepNumbers operator()(const at::Tensor& local_losses) const;

 private:
  at::Tensor culprit(const at::Tensor& losses_finite) const;

  const GradientReducer& reducer_;
  comm::Communicator& tp_;
  comm::Communicator& dp_;
  ProductSquares of_products_;
  SumsOfSquares squares_;         // of gradients that this rank owns, and of others
  SumsOfSquares rest_;            // the same, with those that products have found
  at::Tensor parameter_indices_;  // int64 [parameters]: 0, 1, ...
};

}  // namespace tptrain::zero
