// Which gradients hold inf or nan: one pass over memory, no host synchronisation on CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/cuda/device_table.h"
#include "kernels/cuda/multi_tensor.h"
#include "zero/cuda/passes.h"

namespace tptrain::zero {

class NonfiniteFlags {
 public:
  NonfiniteFlags() = default;  // of no gradient
  /// flags: fp32, one element for each of `gradients` (1-D, fp32 or bf16, contiguous, same device;
  /// undefined: its flag is left alone), which stay where they are.
  NonfiniteFlags(std::vector<at::Tensor> gradients, at::Tensor flags);

  /// A gradient's flag becomes infinite where it holds inf or nan; else it stays what it was. On
  /// CUDA a launch that is the same every time.
  void update();

 private:
  void update_on_cuda();

  std::vector<at::Tensor> gradients_;
  at::Tensor flags_;
  // Of CUDA:
  kernels::cuda::DeviceTable<cuda::Gradient> tensors_;
  kernels::cuda::DeviceTable<kernels::cuda::Chunk> chunks_;
};

}  // namespace tptrain::zero
