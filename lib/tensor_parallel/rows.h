// Shapes that the linears share.
#pragma once

#include <ATen/ATen.h>

#include "parameters/parameter.h"

namespace tptrain::tensor_parallel {

/// [.., X] as [T, X]; a view where `x` is contiguous.
inline at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

/// Of a linear without a bias: an undefined tensor.
inline at::Tensor data_of(const parameters::Parameter* bias) {
  return bias ? bias->data : at::Tensor();
}

}  // namespace tptrain::tensor_parallel
