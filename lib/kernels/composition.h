// What the ATen-facing files share: which path a tensor takes, and the checks of its form. Private
// to this folder.
#pragma once

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::kernels {

/// fp32 on the CPU takes the loops of cpu/; everything else (CUDA, and bf16 or fp64 on the CPU) the
/// ATen composition.
inline bool takes_cpu_loops(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat;
}

/// The compositions compute in fp32, or fp64 where the input is fp64.
inline at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// A wrong shape here is a mistake of a caller in lib/, never of a user.
inline void expect(bool holds, const char* function, const char* constraint,
                   at::IntArrayRef received) {
  if (holds) return;
  throw InternalError(
      problem(cat("kernels::", function, " got sizes [", join(received), "]")).must(constraint));
}
inline void expect_contiguous(const at::Tensor& tensor, const char* function) {
  expect(tensor.is_contiguous(), function, "be contiguous", tensor.sizes());
}

}  // namespace tptrain::kernels
