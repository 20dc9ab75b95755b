// Text -> its one YAML document, with every reason why it is none as a Problem. Knows no key.
// Private to this folder.
#pragma once

#include <yaml-cpp/yaml.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace tptrain::config {

/// What a position is called in messages: "run.yaml:7:12".
using PlaceOf = std::function<std::string(const YAML::Mark&)>;

/// A null node for a text without content. Nothing, and a problem more, where `text` is not valid
/// YAML (with `remedy`), not UTF-8, or more than one document.
std::optional<YAML::Node> load_document(const std::string& text, const PlaceOf& place_of,
                                        const std::string& remedy, std::vector<Problem>& problems);

}  // namespace tptrain::config
