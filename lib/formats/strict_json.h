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
/// Likewise, with the keys of an object in the order of the text: where order matters to a reader,
/// as in templates of conversations and in files that are written again.
nlohmann::ordered_json parse_strict_ordered_json(std::string_view text, const std::string& where,
                                                 int max_depth = 64);

/// What a walk over a JSON text meets, in its order. An event may throw to end the walk.
class JsonEvents {
 public:
  virtual ~JsonEvents() = default;
  virtual void begin_object() = 0;
  virtual void key(std::string&& name) = 0;  // of the innermost object; not checked for duplicates
  virtual void end_object() = 0;
  virtual void begin_array() = 0;
  virtual void end_array() = 0;
  virtual void string(std::string&& text) = 0;
  virtual void unsigned_number(uint64_t value) = 0;
  virtual void negative_number(int64_t) { other("a negative number"); }
  /// null, true, false, a number with a fraction or exponent, or one beyond 64 bits.
  virtual void other(const char* kind) = 0;
};

/// Walks over one JSON value that fills `text` and keeps nothing of it: for files that may be large
/// and hostile, of which a tree would take many times their size. Throws DataError as
/// parse_strict_json does; nesting and duplicate keys are for `events` to refuse.
void walk_json(std::string_view text, const std::string& where, JsonEvents& events);

}  // namespace tptrain::formats
