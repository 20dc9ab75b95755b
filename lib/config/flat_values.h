// The values of a YAML text by their dotted keys, without judging them: for showing and comparing
// what runs were started with, those of older and newer programs too.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tptrain::config {

/// ("parallel.tp_size", "2") in the order of the text; a list is one value, as it is written in one
/// line. Throws ConfigError where the text is not valid YAML; `name` is the file's, for messages.
std::vector<std::pair<std::string, std::string>> flat_values(const std::string& yaml_text,
                                                             const std::string& name);

}  // namespace tptrain::config
