// The products of a linear in FP8: activations and weights as e4m3, gradients as e5m2, each cast
// with a scale of its own that this rank finds in the very tensor (kernels/fp8.h). What goes in and
// comes out, and main_grad, are what they are without FP8; what tp moves stays in the compute
// dtype.
//
//   product                       operands                           sums
//   y  = x W^T                    rows of x, rows of W               fast
//   dx = dy W                     rows of dy, columns of W           split
//   dW = dy^T x, into main_grad   columns of dy, columns of x        split
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "kernels/fp8.h"
#include "parameters/parameter.h"
#include "tensor_parallel/fp8_observer.h"
#include "tensor_parallel/linear_state.h"
#include "tensor_parallel/sequence_region.h"

namespace tptrain::tensor_parallel {

/// What the FP8 linears of a model share. Must outlive them.
struct Fp8Settings {
  /// Casts of weights stay, 2 bytes an element, until weights_version changes: accumulated
  /// micro-batches share them. Else they are made at each use and let go of.
  bool keep_weights = true;
  int64_t weights_version = 0;  // another: values may be others
  Fp8Observer* observer = nullptr;
};

class Fp8Linear {
 public:
  /// Sizes that FP8 products take.
  static bool takes(const parameters::Parameter& weight);

  Fp8Linear(const Fp8Settings& settings, parameters::Parameter& weight)
      : settings_(settings), weight_(weight) {
    weight.wants_amax = true;
  }

  /// x [S, B, in] -> [S, B, out]. `bias` and `input` may be null.
  at::Tensor forward(const at::Tensor& x, const parameters::Parameter* bias, LinearInput* input);
  /// The same, and the sum over tp begun. Collective over tp.
  ReducedSequence forward_reduced(const at::Tensor& x, const parameters::Parameter* bias,
                                  const SequenceRegion& region, LinearInput* input);
  /// dy [S, B, out] -> dx [S, B, in]; finds the amax of dy in `grad`, if it is known, and leaves
  /// there what weight_gradient needs.
  at::Tensor input_gradient(const at::Tensor& grad_output, kernels::Fp8Matrix& grad);
  ReducedSequence input_gradient_reduced(const at::Tensor& grad_output,
                                         const SequenceRegion& region, kernels::Fp8Matrix& grad);
  /// `x` is read where `input` has no columns.
  void weight_gradient(const kernels::Fp8Matrix& grad, const at::Tensor& x,
                       const LinearInput& input);

 private:
  kernels::Fp8Matrix cast(Fp8Observer::Of of, const at::Tensor& values, kernels::Fp8Form form,
                          const at::Tensor& scale = {}, const at::Tensor& amax = {}) const;
  kernels::Fp8Matrix cast_input(const at::Tensor& x, LinearInput* input) const;
  kernels::Fp8Matrix cast_weight(kernels::Fp8Form form) const;
  kernels::Fp8Matrix weight_rows();
  kernels::Fp8Matrix weight_columns();
  const kernels::Fp8Matrix& kept_weight();

  const Fp8Settings& settings_;
  parameters::Parameter& weight_;
  kernels::Fp8Matrix kept_weight_;
  std::optional<int64_t> kept_version_;
};

}  // namespace tptrain::tensor_parallel
