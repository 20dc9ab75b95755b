// --device of the verbs that use a model.
#pragma once

#include <string>

#include "comm/device_mesh.h"

namespace tptrain::apps {

/// "auto" (a GPU where there is one), "cpu" or "cuda". Throws ConfigError where there is no CUDA.
comm::DeviceType device_type(const std::string& name);

}  // namespace tptrain::apps
