// What this program's kernels were compiled for, and whether the driver finds code for a GPU among
// it.
#include <cuda_runtime_api.h>

#include <array>

#include "device/cuda/architectures.h"
#include "device/gpu_support.h"

namespace tptrain::device {
namespace {

__global__ void probe_kernel() {}

}  // namespace

bool current_gpu_runs_this_program() {
  cudaFuncAttributes attributes{};
  const cudaError_t status = cudaFuncGetAttributes(&attributes, probe_kernel);
  cudaGetLastError();  // it is told by the caller, not by the next call that looks
  return status != cudaErrorNoKernelImageForDevice && status != cudaErrorInvalidDeviceFunction &&
         status != cudaErrorUnsupportedPtxVersion;
}

std::vector<int> compiled_architectures() {
  constexpr std::array kList = {__CUDA_ARCH_LIST__};  // nvcc's: 800, 900 ...
  std::vector<int> architectures;
  for (const int architecture : kList) architectures.push_back(architecture / 10);
  return architectures;
}

}  // namespace tptrain::device
