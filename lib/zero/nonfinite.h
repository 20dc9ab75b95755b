// Which gradients hold inf or nan: one pass over memory, no host synchronisation on CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace tptrain::zero {

/// marks: fp32, one word for each of `gradients` (1-D fp32, contiguous, same device): becomes inf
/// or nan where the gradient holds one; else stays what it was, or becomes another finite number.
void mark_nonfinite(const std::vector<at::Tensor>& gradients, at::Tensor& marks);

}  // namespace tptrain::zero
