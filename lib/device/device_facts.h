// Numbers about the device and this process that the step metrics need.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

namespace tptrain::device {

struct MemoryUse {
  int64_t peak_bytes =
      0;  // CUDA: reserved by the caching allocator; CPU: the process's high-water mark (VmHWM)
  int64_t total_bytes = 0;  // of the device, or of the host
};
MemoryUse memory_use(at::Device device);

/// Dense peak of the device for GEMMs of this type (fp32: with TF32 off; bf16: tensor cores,
/// without sparsity) in FLOP/s by its vendor's data sheet, where the device is known; nothing on a
/// CPU.
std::optional<double> peak_flops(at::Device device, at::ScalarType dtype);
/// The same for a device of this name: "NVIDIA H200".
std::optional<double> peak_flops(const std::string& device_name, at::ScalarType dtype);

}  // namespace tptrain::device
