// A hash of a tensor's bits, the same on CPU and CUDA; the order of elements counts.
#pragma once

#include <ATen/core/Tensor.h>

namespace tptrain::zero {

/// int64 scalar on the device of `values` (1-D, contiguous, fp32 or bf16): the sum over elements of
/// (bits + 1) * an odd weight of the index, mod 2^64. One changed element always changes it. Does
/// not block the host.
at::Tensor value_hash(const at::Tensor& values);

/// The same number by whole-tensor operations on any device: the way of CUDA, for tests without it.
at::Tensor value_hash_by_operations(const at::Tensor& values);

}  // namespace tptrain::zero
