// Facts about a GPU, for metrics and the start log. In a build without CUDA every function throws
// CommError.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace tptrain::comm {

struct DeviceMemory {
  int64_t peak_reserved_bytes = 0;  // by the caching allocator, since the process started
  int64_t total_bytes = 0;
};
DeviceMemory device_memory(at::Device device);

/// "NVIDIA H200"
std::string device_name(at::Device device);

}  // namespace tptrain::comm
