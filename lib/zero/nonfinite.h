// Which gradients hold inf or nan: one pass over memory, no host synchronisation on CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/cuda/device_table.h"
#include "kernels/cuda/multi_tensor.h"
#include "zero/cuda/passes.h"

namespace tptrain::zero {

class NonfiniteMarks {
 public:
  NonfiniteMarks() = default;  // of no gradient
  /// marks: fp32, one word for each of `gradients` (1-D, fp32 or bf16, contiguous, same device;
  /// undefined: its word is left alone), which stay where they are.
  NonfiniteMarks(std::vector<at::Tensor> gradients, at::Tensor marks);

  /// A gradient's word becomes infinite where it holds inf or nan; else it stays what it was. On
  /// CUDA a launch that is the same every time.
  void update();

 private:
  void update_on_cuda();

  std::vector<at::Tensor> gradients_;
  at::Tensor marks_;
  // Of CUDA:
  kernels::cuda::DeviceTable<cuda::Gradient> tensors_;
  kernels::cuda::DeviceTable<kernels::cuda::Chunk> chunks_;
};

}  // namespace tptrain::zero
