// The values of a run file by the paths of their keys, for those who compare two of them.
#pragma once

#include <map>
#include <string>

#include "config/run_config.h"

namespace tptrain::config {

/// Every key that has a value, by its path, with that value as YAML text; and every key's default.
std::map<std::string, std::string> key_values(const RunConfig& config);
std::map<std::string, std::string> default_values();

}  // namespace tptrain::config
