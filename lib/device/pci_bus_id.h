// The name by which NVML and other processes know a GPU; of the CUDA build alone.
#pragma once

#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>

#include <array>
#include <string>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::device {

/// Throws CommError where the driver does not say.
inline std::string pci_bus_id(at::Device device) {
  std::array<char, 32> id = {};
  const cudaError_t status = cudaDeviceGetPCIBusId(id.data(), id.size(), device.index());
  if (status == cudaSuccess) return id.data();
  throw CommError(problem(cat("cudaDeviceGetPCIBusId of ", device.str(), " failed (",
                              cudaGetErrorString(status), ")")));
}

}  // namespace tptrain::device
