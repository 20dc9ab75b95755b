#include "formats/strict_json.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/json_tree.h"
#include "base/text.h"

namespace tptrain::formats {

namespace {

// A number of megabytes, or as much space before a fault, would be copied a dozen times into
// nlohmann's message.
void refuse_endless_tokens(std::string_view text, const std::string& where) {
  constexpr size_t kLongest = 1 << 16;
  bool in_string = false;
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
      begin = i + 1;
    } else if (c == '"' || c == ',' || c == ':' || c == '{' || c == '}' || c == '[' || c == ']') {
      in_string = c == '"';
      begin = i + 1;
    } else if (i - begin == kLongest) {
      throw DataError(problem(cat("not valid JSON: from byte ", begin, " on, ", kLongest,
                                  " bytes are one number, one word or space"))
                          .at(where));
    }
  }
}

// nlohmann's events -> ours.
class SaxAdapter {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  SaxAdapter(JsonEvents& events, const std::string& where) : events_(events), where_(where) {}

  bool null() { return other("null"); }
  bool boolean(bool) { return other("a boolean"); }
  bool number_integer(number_integer_t value) {
    events_.negative_number(value);
    return true;
  }
  bool number_float(number_float_t, const string_t&) { return other("no whole number"); }
  bool binary(binary_t&) { return other("binary"); }
  bool number_unsigned(number_unsigned_t value) {
    events_.unsigned_number(value);
    return true;
  }
  bool string(string_t& text) {
    events_.string(std::move(text));
    return true;
  }
  bool key(string_t& name) {
    events_.key(std::move(name));
    return true;
  }
  bool start_object(size_t) {
    events_.begin_object();
    return true;
  }
  bool end_object() {
    events_.end_object();
    return true;
  }
  bool start_array(size_t) {
    events_.begin_array();
    return true;
  }
  bool end_array() {
    events_.end_array();
    return true;
  }
  [[noreturn]] bool parse_error(size_t, const std::string&, const nlohmann::json::exception& e) {
    throw DataError(problem(cat("not valid JSON: ", readable_json_error(e.what()))).at(where_));
  }

 private:
  bool other(const char* kind) {
    events_.other(kind);
    return true;
  }

  JsonEvents& events_;
  const std::string& where_;
};

}  // namespace

void walk_json(std::string_view text, const std::string& where, JsonEvents& events) {
  text = text.substr(0, text.find_last_not_of(" \t\r\n") + 1);  // padding may be long
  refuse_nul_in_json(text, where);
  refuse_endless_tokens(text, where);
  SaxAdapter adapter(events, where);
  nlohmann::json::sax_parse(text.begin(), text.end(), &adapter);
}

nlohmann::json parse_strict_json(std::string_view text, const std::string& where, int max_depth) {
  return parse_json_tree(text, where, {.max_depth = max_depth});
}

nlohmann::ordered_json parse_strict_ordered_json(std::string_view text, const std::string& where,
                                                 int max_depth) {
  parse_json_tree(text, where, {.max_depth = max_depth});  // the one that decides
  return nlohmann::ordered_json::parse(text.begin(), text.end());
}

}  // namespace tptrain::formats
