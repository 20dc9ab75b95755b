#include "base/json_tree.h"

#include <deque>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace tptrain {

namespace {

using nlohmann::json;
using Event = json::parse_event_t;

constexpr size_t kShownKey = 200;
constexpr size_t kShownError = 300;  // a number of a million digits stands in the message whole

// Takes the events of nlohmann::json::sax_parse.
class Builder {
 public:
  Builder(const std::string& where, const JsonTreeOptions& options)
      : where_(where), options_(options) {}

  bool null() { return value(nullptr); }
  bool boolean(bool v) { return value(v); }
  bool number_integer(json::number_integer_t v) { return value(v); }
  bool number_unsigned(json::number_unsigned_t v) { return value(v); }
  bool number_float(json::number_float_t v, const std::string&) { return value(v); }
  bool string(std::string& v) { return value(std::move(v)); }
  bool binary(json::binary_t& v) { return value(std::move(v)); }
  bool start_object(size_t) { return open(Event::object_start, json::object()); }
  bool start_array(size_t) { return open(Event::array_start, json::array()); }
  bool end_object() { return close(Event::object_end); }
  bool end_array() { return close(Event::array_end); }

  bool key(std::string& name) {
    json shown = std::move(name);
    key_kept_ = kept(depth(), Event::key, shown);
    if (!key_kept_) return true;
    auto& members = open_.back().value->get_ref<json::object_t&>();
    const auto [at, fresh] = members.emplace(shown.get_ref<const std::string&>(), nullptr);
    if (!fresh) {
      throw DataError(
          problem(cat("JSON object names the key \"", at->first.substr(0, kShownKey), "\" twice"))
              .at(where_)
              .must("name each key once"));
    }
    open_.back().member = at;
    return true;
  }

  [[noreturn]] bool parse_error(size_t, const std::string&, const nlohmann::json::exception& e) {
    throw DataError(problem(cat("not valid JSON: ", readable_json_error(e.what()))).at(where_));
  }

  json take() { return std::move(root_); }

 private:
  struct Open {
    json* value;
    json::object_t::iterator member = {};  // of an object: the one that the last key is for
  };

  int depth() const { return static_cast<int>(open_.size()); }
  bool kept(int depth, Event event, json& parsed) const {
    return !options_.watch || options_.watch(depth, event, parsed);
  }

  // A list moves its elements when it grows, but only its last one can be open, and nothing is
  // added behind that one while it is.
  json* place(json v) {
    if (open_.empty()) {
      root_ = std::move(v);
      return &root_;
    }
    json& parent = *open_.back().value;
    if (parent.is_array()) {
      parent.push_back(std::move(v));
      return &parent.back();
    }
    if (!key_kept_) {  // a list or object that nobody will see; it must stay where it is
      dropped_.push_back(std::move(v));
      return &dropped_.back();
    }
    open_.back().member->second = std::move(v);
    return &open_.back().member->second;
  }

  // The last value that was placed.
  void remove_last() {
    if (open_.empty()) {
      root_ = nullptr;
      return;
    }
    json& parent = *open_.back().value;
    if (parent.is_array()) {
      parent.erase(parent.size() - 1);
    } else if (key_kept_) {
      parent.get_ref<json::object_t&>().erase(open_.back().member);
    }
  }

  bool value(json v) {
    const bool keep = kept(depth(), Event::value, v);
    const bool member = !open_.empty() && open_.back().value->is_object();
    if (member && !key_kept_) return true;
    if (keep) {
      place(std::move(v));
    } else if (member) {
      open_.back().value->get_ref<json::object_t&>().erase(open_.back().member);
    }
    return true;
  }

  bool open(Event event, json v) {
    if (depth() >= options_.max_depth) {
      throw DataError(problem("JSON nested deeper than this format ever is")
                          .at(where_)
                          .must(cat("stay within ", options_.max_depth, " levels")));
    }
    kept(depth(), event, v);
    const bool outer_kept = key_kept_;
    open_.push_back({place(std::move(v))});
    outer_keys_.push_back(outer_kept);
    return true;
  }

  bool close(Event event) {
    const bool keep = kept(depth() - 1, event, *open_.back().value);
    open_.pop_back();
    key_kept_ = outer_keys_.back();
    outer_keys_.pop_back();
    if (!keep) remove_last();
    return true;
  }

  const std::string& where_;
  const JsonTreeOptions& options_;
  json root_;
  std::vector<Open> open_;
  std::vector<bool> outer_keys_;  // key_kept_ of the objects around
  bool key_kept_ = true;
  std::deque<json> dropped_;
};

}  // namespace

json parse_json_tree(std::string_view text, const std::string& where,
                     const JsonTreeOptions& options) {
  refuse_nul_in_json(text, where);
  Builder builder(where, options);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

void refuse_nul_in_json(std::string_view text, const std::string& where) {
  if (const size_t nul = text.find('\0'); nul != text.npos)
    throw DataError(problem(cat("not valid JSON: byte ", nul, " is NUL")).at(where));
}

std::string readable_json_error(const char* what) {
  std::string text = what;
  if (const size_t bracket = text.find("] "); text.starts_with("[json.") && bracket != text.npos) {
    text = text.substr(bracket + 2);
  }
  if (const size_t raw = text.find("; last read"); raw != text.npos) text.resize(raw);
  if (const size_t raw = text.find(" - invalid string"); raw != text.npos) text.resize(raw);
  return text.size() > kShownError ? text.substr(0, kShownError) + "..." : text;
}

}  // namespace tptrain
