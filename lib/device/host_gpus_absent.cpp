#include "device/gpu_support.h"
#include "device/host_gpus.h"

namespace tptrain::device {

HostGpus host_gpus() { return {}; }

std::vector<int> compiled_architectures() { return {}; }

}  // namespace tptrain::device
