// Numbers about the device and this process that the step metrics need.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace tptrain::train {

struct MemoryUse {
  int64_t peak_bytes =
      0;  // CUDA: reserved by the caching allocator; CPU: the process's high-water mark (VmHWM)
  int64_t total_bytes = 0;  // of the device, or of the host
};
MemoryUse memory_use(at::Device device);

/// Dense fp32 peak (TF32 off) of the device in FLOP/s by its vendor's data sheet, where the device
/// is known; nothing on a CPU.
std::optional<double> peak_fp32_flops(at::Device device);

/// Processors this process may run on.
int available_cores();

}  // namespace tptrain::train
