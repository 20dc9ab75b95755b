#include "device/device_facts.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <string_view>

#include "device/device_info.h"

namespace tptrain::device {
namespace {

// "VmHWM:     123456 kB" of /proc/self/status.
int64_t high_water_mark_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

/// "A100" is in "NVIDIA A100-SXM4-80GB" and not in "NVIDIA A1000"; "RTX 3090" is not the laptop's
/// or the Ti, which are other parts.
bool has_words(std::string_view name, std::string_view words) {
  const size_t at = name.find(words);
  if (at == std::string_view::npos || (at > 0 && name[at - 1] != ' ')) return false;
  const std::string_view rest = name.substr(at + words.size());
  if (rest.empty()) return true;
  if (rest.starts_with(" Ti") || rest.starts_with(" D") || rest.find("Laptop") != rest.npos)
    return false;
  return rest[0] == ' ' || rest[0] == '-';
}

}  // namespace

MemoryUse memory_use(at::Device device) {
  if (!device.is_cuda()) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    return {.peak_bytes = high_water_mark_bytes(), .total_bytes = sysconf(_SC_PHYS_PAGES) * page};
  }
  const DeviceMemory memory = device_memory(device);
  return {.peak_bytes = memory.peak_reserved_bytes, .total_bytes = memory.total_bytes};
}

std::optional<double> peak_flops(at::Device device, at::ScalarType dtype) {
  if (!device.is_cuda()) return std::nullopt;
  return peak_flops(device_name(device), dtype);
}

std::optional<double> peak_flops(const std::string& device_name, at::ScalarType dtype) {
  struct Part {
    std::string_view words;  // of the device's name, one after another
    double fp32;
    double bf16;
  };
  // NVIDIA's data sheets and architecture papers: "FP32", and "BFLOAT16 Tensor Core" with FP32
  // accumulation, halved where the sheet counts sparsity. Of several that fit the first is meant.
  constexpr std::array<Part, 15> kParts = {{{"H200 NVL", 60e12, 835.5e12},
                                            {"H200", 66.9e12, 989e12},
                                            {"H100 PCIe", 51.2e12, 756e12},
                                            {"H100 NVL", 60e12, 835.5e12},
                                            {"H100", 66.9e12, 989e12},
                                            {"B200", 75e12, 2250e12},
                                            {"A100", 19.5e12, 312e12},
                                            {"A10", 31.2e12, 125e12},
                                            {"L4", 30.3e12, 121e12},
                                            {"L40S", 91.6e12, 362e12},
                                            {"L40", 90.5e12, 181e12},
                                            {"RTX 6000 Ada", 91.1e12, 364.2e12},
                                            {"RTX 3090", 35.6e12, 71e12},
                                            {"RTX 4090", 82.6e12, 165.2e12},
                                            {"RTX 5090", 104.8e12, 209.5e12}}};
  // A slice of one has a part of its multiprocessors ("NVIDIA A100-SXM4-40GB MIG 3g.20gb").
  if (device_name.find(" MIG ") != std::string::npos) return std::nullopt;
  for (const Part& part : kParts) {
    if (has_words(device_name, part.words)) return dtype == at::kBFloat16 ? part.bf16 : part.fp32;
  }
  return std::nullopt;
}

}  // namespace tptrain::device
