// A JSON text as a tree, strictly: an object that names a key twice is refused (nlohmann's own
// parser keeps the last one silently, so that two readers could see two contents in one file), and
// so is deep nesting. Linear in the text: nlohmann's parser with a callback looks through a whole
// list again for each object in it. Used where files are not trusted (formats/strict_json.h,
// tokenizers); not for configuration, which is YAML.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tptrain {

struct JsonTreeOptions {
  int max_depth = 64;
  /// As nlohmann's parser_callback_t: sees each event with its depth (0 for the outermost value's
  /// own); what it answers false to, a value, a list or object at its end, or a key with its plain
  /// value, is not kept. Called for what stands below a key that is not kept, too.
  std::function<bool(int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed)>
      watch = {};
};

/// One JSON value that fills `text`. Throws DataError naming `where`: not JSON (with line and
/// column), not UTF-8, a NUL byte, a key given twice, nested too deep; and whatever `watch` throws.
/// Never throws anything of nlohmann.
nlohmann::json parse_json_tree(std::string_view text, const std::string& where,
                               const JsonTreeOptions& options = {});

/// Throws DataError where the text holds a NUL byte, which nlohmann takes for its end, so that
/// anything could follow it unseen.
void refuse_nul_in_json(std::string_view text, const std::string& where);

/// nlohmann's message without its own name and the raw bytes of the file, which may be anything.
std::string readable_json_error(const char* what);

}  // namespace tptrain
