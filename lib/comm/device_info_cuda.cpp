#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include "base/error.h"
#include "base/text.h"
#include "comm/device_info.h"

namespace tptrain::comm {
namespace {

cudaDeviceProp properties(at::Device device) {
  cudaDeviceProp found = {};
  const cudaError_t status = cudaGetDeviceProperties(&found, device.index());
  if (status != cudaSuccess) {
    throw CommError(problem(cat("cudaGetDeviceProperties of ", device.str(), " failed (",
                                cudaGetErrorString(status), ")")));
  }
  return found;
}

}  // namespace

DeviceMemory device_memory(at::Device device) {
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
  return {.peak_reserved_bytes = stats.reserved_bytes[0].peak,
          .total_bytes = static_cast<int64_t>(properties(device).totalGlobalMem)};
}

std::string device_name(at::Device device) { return properties(device).name; }

}  // namespace tptrain::comm
