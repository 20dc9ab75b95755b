// What a linear leaves of its input and of its gradient: between forward and backward, and between
// the two halves of backward. Which parts of it are used depends on the linear: FP8 casts
// (fp8_linear.h), an adapter's products (low_rank_adapter.h), or nothing.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/fp8.h"
#include "kernels/kernels.h"

namespace tptrain::tensor_parallel {

/// A linear's input on its way from forward to backward.
struct LinearInput {
  /// In FP8. Before forward: its amax, where it is known. After: its scale, and its columns where
  /// they are kept: backward then needs nothing else of it.
  kernels::Fp8Matrix cast = {};
  bool keep_columns = false;
  kernels::Dropout adapter_dropout = {};  // said before forward, the same in backward
  at::Tensor adapter_down;  // [S, B, R]: what an adapter has made of it; undefined: made again

  bool has_columns() const { return cast.columns.defined(); }
};

/// The gradient of a linear's output, on its way from the input's gradient to the weights'.
struct LinearGradient {
  kernels::Fp8Matrix cast = {};
  at::Tensor adapter_down;  // [S, B, R]: the gradient of LinearInput::adapter_down; undefined: yet
                            // to be made
  bool bias_added = false;  // the bias's gradient, by what made this one
};

}  // namespace tptrain::tensor_parallel
