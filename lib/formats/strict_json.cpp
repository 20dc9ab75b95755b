#include "formats/strict_json.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::formats {

namespace {

// "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error ...; last read:
// '...'" without nlohmann's own name and without the raw bytes of the file, which may be anything.
std::string readable(const char* what) {
  std::string text = what;
  if (const size_t bracket = text.find("] "); text.starts_with("[json.") && bracket != text.npos) {
    text = text.substr(bracket + 2);
  }
  if (const size_t raw = text.find("; last read"); raw != text.npos) text.resize(raw);
  if (const size_t raw = text.find(" - invalid string"); raw != text.npos) text.resize(raw);
  return text;
}

}  // namespace

nlohmann::json parse_strict_json(std::string_view text, const std::string& where, int max_depth) {
  std::vector<std::unordered_set<std::string>> open_objects;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    if (event == Event::object_start) open_objects.emplace_back();
    if (event == Event::object_end) open_objects.pop_back();
    if ((event == Event::object_start || event == Event::array_start) && depth >= max_depth) {
      throw DataError(problem("JSON nested deeper than this format ever is")
                          .at(where)
                          .must(cat("stay within ", max_depth, " levels")));
    }
    if (event == Event::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (!open_objects.back().insert(key).second) {
        throw DataError(problem(cat("JSON object names the key \"", key, "\" twice"))
                            .at(where)
                            .must("name each key once"));
      }
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), watch);
  } catch (const nlohmann::json::exception& e) {
    throw DataError(problem(cat("not valid JSON: ", readable(e.what()))).at(where));
  }
}

}  // namespace tptrain::formats
