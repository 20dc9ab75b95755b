// --device and --dtype of the verbs that use a model.
#pragma once

#include <string>

#include "comm/device_mesh.h"

namespace tptrain::apps {

/// "auto" (a GPU where there is one), "cpu" or "cuda". Throws ConfigError where there is no CUDA.
comm::DeviceType device_type(const std::string& name);

/// "auto" (bf16 on GPUs, fp32 on CPUs), "fp32" or "bf16" -> one of the latter two.
std::string dtype_on(const std::string& name, comm::DeviceType device);

}  // namespace tptrain::apps
