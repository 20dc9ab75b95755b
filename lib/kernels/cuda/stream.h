// The stream that ATen's own work goes to, as the kernels of this folder take it.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

/// That of the tensor's device. Null in a build without CUDA.
Stream stream_of(const at::Tensor& tensor);
/// Throws InternalError where the last launch was refused (a size out of its bounds).
void check_launch(const char* function);

}  // namespace tptrain::kernels::cuda
