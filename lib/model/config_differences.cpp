#include "model/config_differences.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "base/text.h"

namespace tptrain::model {

std::string differences(const DecoderConfig& before, const DecoderConfig& now) {
  const nlohmann::json a = nlohmann::json::parse(to_json(before));
  const nlohmann::json b = nlohmann::json::parse(to_json(now));
  std::vector<std::string> changes;
  nlohmann::json keys = a;
  keys.update(b);
  for (const auto& [key, ignored] : keys.items()) {
    const std::string was = a.contains(key) ? a.at(key).dump() : "none";
    const std::string is = b.contains(key) ? b.at(key).dump() : "none";
    if (was != is) changes.push_back(cat(key, ": ", was, " -> ", is));
  }
  return join(changes, "; ");
}

}  // namespace tptrain::model
