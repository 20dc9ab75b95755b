#include "base/error.h"
#include "device/device_info.h"

namespace tptrain::device {
namespace {

[[noreturn]] void refuse() {
  throw CommError(problem("a GPU was asked about, but this build has no CUDA")
                      .remedy("Build with cmake --preset cuda, or set train.device: cpu."));
}

}  // namespace

DeviceMemory device_memory(at::Device) { refuse(); }
DeviceUse device_use(at::Device) { refuse(); }
GpuFacts gpu_facts(at::Device, int, const std::vector<std::string>&) { refuse(); }
std::string device_name(at::Device) { refuse(); }

}  // namespace tptrain::device
