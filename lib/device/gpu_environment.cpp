#include "device/gpu_environment.h"

#include <cstdlib>
#include <string>

#include "device/gpu_report.h"

namespace tptrain::device {

namespace {
constexpr const char* kVariable = "CUDA_DEVICE_MAX_CONNECTIONS";
constexpr int kDefaultOfCuda = 8;
}  // namespace

void ask_for_queues() { setenv(kVariable, std::to_string(kQueues).c_str(), /*overwrite=*/0); }

int queues_of_device() {
  const char* set = std::getenv(kVariable);
  if (set == nullptr) return kDefaultOfCuda;
  // Of a text that is no number it is not known what CUDA makes.
  const int queues = std::atoi(set);
  return queues > 0 ? queues : kQueues;
}

}  // namespace tptrain::device
