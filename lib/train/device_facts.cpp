#include "train/device_facts.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>

#include "comm/device_info.h"

namespace tptrain::train {
namespace {

// "VmHWM:     123456 kB" of /proc/self/status.
int64_t high_water_mark_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::stoll(line.substr(6)) * 1024;
  }
  return 0;
}

}  // namespace

MemoryUse memory_use(at::Device device) {
  if (!device.is_cuda()) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    return {.peak_bytes = high_water_mark_bytes(), .total_bytes = sysconf(_SC_PHYS_PAGES) * page};
  }
  const comm::DeviceMemory memory = comm::device_memory(device);
  return {.peak_bytes = memory.peak_reserved_bytes, .total_bytes = memory.total_bytes};
}

std::optional<double> peak_flops(at::Device device, at::ScalarType dtype) {
  if (!device.is_cuda()) return std::nullopt;
  return peak_flops(comm::device_name(device), dtype);
}

std::optional<double> peak_flops(const std::string& device_name, at::ScalarType dtype) {
  struct Part {
    const char* name;
    double fp32;
    double bf16;
  };
  // NVIDIA's data sheets for the SXM parts: "FP32" and "BFLOAT16 Tensor Core", the latter halved
  // where the sheet counts sparsity.
  constexpr std::array<Part, 3> kParts = {
      {{"H200", 66.9e12, 989e12}, {"H100", 66.9e12, 989e12}, {"A100", 19.5e12, 312e12}}};
  for (const Part& part : kParts) {
    if (device_name.find(part.name) == std::string::npos) continue;
    return dtype == at::kBFloat16 ? part.bf16 : part.fp32;
  }
  return std::nullopt;
}

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace tptrain::train
