// Gradients whose squares their products find in passing (parameters::GradientSquares): the norm
// does not read them. Whose: of matrices that one product of a step writes and nothing changes
// before the norm, where the device has such products.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "zero/bucket_state.h"
#include "zero/gradient_reducer.h"

namespace tptrain::zero {

class ProductSquares {
 public:
  /// Asks for them; all must outlive it.
  ProductSquares(const ParamBuckets& buckets, const GradientReducer& reducer);
  ~ProductSquares();
  ProductSquares(const ProductSquares&) = delete;  // parameters have its memory

  /// Undefined: the norm has to read the gradient.
  at::Tensor of(const parameters::Parameter& parameter) const;
  /// Products of this step have found them all, and nothing was added since: not where it has
  /// several micro-batches, or operands of other forms.
  bool current() const;

 private:
  struct Asked {
    parameters::Parameter* parameter = nullptr;
    at::Tensor of_pieces;
  };
  std::vector<Asked> asked_;
};

}  // namespace tptrain::zero
