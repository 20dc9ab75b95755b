#include "kernels/cuda/properties.h"

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::kernels::cuda {

namespace {

// The runtime keeps them: no call of the driver.
int attribute(cudaDeviceAttr which) {
  int device = 0;
  int value = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status == cudaSuccess) status = cudaDeviceGetAttribute(&value, which, device);
  if (status == cudaSuccess) return value;
  throw InternalError(
      problem(cat("kernels: asking the GPU for an attribute: ", cudaGetErrorString(status))));
}

}  // namespace

int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }
int shared_bytes_of_block() { return attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin); }
int shared_bytes_of_multiprocessor() {
  return attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
}
int capability() {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
         attribute(cudaDevAttrComputeCapabilityMinor);
}

}  // namespace tptrain::kernels::cuda
