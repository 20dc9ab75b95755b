// JSON as a file that must be trusted: nlohmann's parser, but an object that names a key twice is
// refused (nlohmann keeps the last one silently, so two readers could see two contents in one
// file), and so is deep nesting. Not for configuration: that is YAML.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace tptrain::formats {

/// Parses one JSON value that fills `text`. Throws DataError naming `where` and the line and
/// column: not JSON, not UTF-8, a key given twice, nested deeper than `max_depth`. Never throws
/// anything of nlohmann.
nlohmann::json parse_strict_json(std::string_view text, const std::string& where,
                                 int max_depth = 64);

}  // namespace tptrain::formats
