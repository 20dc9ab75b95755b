#include "train/device_facts.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <utility>

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

std::optional<double> peak_fp32_flops(at::Device device) {
  if (!device.is_cuda()) return std::nullopt;
  // FP32 (not tensor core) rows of NVIDIA's data sheets for the SXM parts.
  constexpr std::array<std::pair<const char*, double>, 3> kPeaks = {
      {{"H200", 66.9e12}, {"H100", 66.9e12}, {"A100", 19.5e12}}};
  const std::string name = comm::device_name(device);
  for (const auto& [part, flops] : kPeaks) {
    if (name.find(part) != std::string::npos) return flops;
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
