#include "commands/device_option.h"

#include <ATen/Context.h>

#include "base/error.h"

namespace tptrain::apps {

comm::DeviceType device_type(const std::string& name) {
  if (name == "cpu") return comm::DeviceType::cpu;
  if (at::hasCUDA()) return comm::DeviceType::cuda;
  if (name == "auto") return comm::DeviceType::cpu;
  throw ConfigError(problem("--device is cuda, but this build of tptrain or this host has no CUDA")
                        .remedy("Use --device cpu or auto, or a build of the cuda preset."));
}

std::string dtype_on(const std::string& name, comm::DeviceType device) {
  if (name != "auto") return name;
  return device == comm::DeviceType::cuda ? "bf16" : "fp32";
}

}  // namespace tptrain::apps
