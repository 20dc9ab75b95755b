#include "device/gpu_support.h"

#include "base/error.h"
#include "base/text.h"
#include "device/gpu_report.h"

namespace tptrain::device {
namespace {

/// 90: "9.0"
std::string capability_text(int capability) { return cat(capability / 10, ".", capability % 10); }

std::string list_text(const std::vector<int>& architectures) {
  std::vector<std::string> texts;
  for (const int architecture : architectures) texts.push_back(capability_text(architecture));
  return texts.empty() ? "none" : join(texts);
}

}  // namespace

void check_gpu_supported(const GpuSupport& gpu, const std::vector<int>& architectures) {
  const std::string what =
      cat("the GPU ", gpu.name, " has capability ", capability_text(gpu.capability));
  if (gpu.capability < kLeastCapability) {
    throw ConfigError(problem(what)
                          .at("device mesh")
                          .must(cat("be at least ", capability_text(kLeastCapability),
                                    ", as A100, A10, L4, RTX 30 and whatever came after them are"))
                          .remedy("Choose another GPU with CUDA_VISIBLE_DEVICES, or set "
                                  "train.device to cpu."));
  }
  if (gpu.runs_this_program) return;
  throw ConfigError(
      problem(what)
          .at("device mesh")
          .must(cat("be one that this program holds code for: ", list_text(architectures)))
          .remedy(cat("Build it for this GPU: cmake --preset cuda -DCMAKE_CUDA_ARCHITECTURES=",
                      gpu.capability, " && cmake --build --preset cuda --target tptrain.")));
}

void check_driver(int driver_cuda, int runtime_cuda, const std::string& driver) {
  // Within one major version newer programs run on older drivers.
  if (driver_cuda / 1000 >= runtime_cuda / 1000) return;
  const std::string has = driver_cuda == 0
                              ? std::string("no NVIDIA driver is loaded on this host")
                              : cat("the NVIDIA driver", driver.empty() ? "" : " ", driver,
                                    " serves CUDA up to ", cuda_version_text(driver_cuda));
  throw ConfigError(
      problem(has)
          .at("device mesh")
          .must(cat("serve CUDA ", cuda_version_text(runtime_cuda), ", which this program uses"))
          .remedy(cat(runtime_cuda / 1000 == 13 ? "Install driver 580 or a newer one"
                                                : "Install a newer driver",
                      " (nvidia-smi shows which is there), or set train.device to cpu.")));
}

}  // namespace tptrain::device
