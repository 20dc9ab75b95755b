// Facts about a GPU, for metrics and the start log. In a build without CUDA every function throws
// CommError.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "device/gpu_report.h"

namespace tptrain::device {

struct DeviceMemory {
  int64_t peak_reserved_bytes = 0;  // by the caching allocator, since the process started
  int64_t total_bytes = 0;
};
DeviceMemory device_memory(at::Device device);

/// What fills the device just now.
struct DeviceUse {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
  int64_t reserved_bytes = 0;        // by this process's caching allocator
  int64_t peak_allocated_bytes = 0;  // most that its tensors took at once
};
DeviceUse device_use(at::Device device);

/// `host_gpus`: DeviceMesh's, of which this rank's is the one at `local_rank`. What a library or
/// the driver does not say is left empty, and what is NCCL's (comm/nccl_library.h).
GpuFacts gpu_facts(at::Device device, int local_rank, const std::vector<std::string>& host_gpus);

/// "NVIDIA H200"
std::string device_name(at::Device device);

}  // namespace tptrain::device
