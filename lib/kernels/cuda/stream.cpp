#include "kernels/cuda/stream.h"

#include <ATen/cuda/CUDAContext.h>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::kernels::cuda {

bool built() { return true; }

Stream stream_of(const at::Tensor& tensor) {
  return at::cuda::getCurrentCUDAStream(tensor.get_device()).stream();
}

void check_launch(const char* function) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return;
  throw InternalError(problem(cat("kernels::", function, ": ", cudaGetErrorString(error))));
}

}  // namespace tptrain::kernels::cuda
