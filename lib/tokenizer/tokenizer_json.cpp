#include "tokenizer/tokenizer_json.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/json_tree.h"
#include "base/text.h"
#include "tokenizer/code_points.h"

namespace tptrain::tokenizer {

using nlohmann::json;
using Event = json::parse_event_t;

namespace {

constexpr size_t kFileLimit = size_t{256} << 20;  // the largest in use (Gemma's) have 34 MB
constexpr int kDepthLimit = 32;
// Outside vocab and merges. 100,000 added tokens have 800,000; a value takes some 100 bytes.
constexpr size_t kValueLimit = 2'000'000;

void check_size(std::string_view text, const std::string& name) {
  if (text.size() <= kFileLimit) return;
  throw DataError(problem(cat("file of ", human_bytes(static_cast<int64_t>(text.size()))))
                      .at(name)
                      .must(cat("have at most ", human_bytes(kFileLimit))));
}

int32_t id_of(const json& value, const std::string& token, const std::string& where) {
  if (value.is_number_unsigned() && value.get<uint64_t>() <= std::numeric_limits<int32_t>::max()) {
    return static_cast<int32_t>(value.get<uint64_t>());
  }
  throw DataError(problem(cat("the token ", shown(token), " has ",
                              value.is_number() ? value.dump() : value.type_name(), " as its id"))
                      .at(where)
                      .must("have a whole number from 0 to 2147483647"));
}

// Called by the parser for every value; what it answers false to is not kept. Values at depth d
// belong to the container opened at depth d - 1.
class Watcher {
 public:
  Watcher(TokenizerJson& result, const std::string& name, bool only_vocab)
      : result_(result), name_(name), only_vocab_(only_vocab) {}

  bool operator()(int depth, Event event, json& parsed) {
    switch (event) {
      case Event::object_start:
      case Event::array_start:
        if (event == Event::array_start && depth == 2 && in_model() && second_ == "vocab") {
          vocab_is_list_ = true;  // of pieces and scores: Unigram's, refused by its name later
        }
        if (in_vocab(depth))
          id_of(json(event == Event::object_start ? json::value_t::object : json::value_t::array),
                token_, vocab_place());
        if (event == Event::object_start && depth == 3 && in_merges()) merge(json::object());
        count();
        return true;
      case Event::object_end:
        return true;
      case Event::key:
        return key(depth, parsed);
      case Event::array_end:
        // An array of merges is complete: one level above it is the list.
        if (depth == 3 && in_merges()) merge(parsed);
        return !(depth == 3 && (in_merges() || in_vocab_list()));
      case Event::value:
        return value(depth, parsed);
    }
    return true;
  }

 private:
  std::string vocab_place() const { return cat(name_, only_vocab_ ? "" : ": model.vocab"); }
  bool in_model() const { return !only_vocab_ && top_ == "model"; }
  bool in_merges() const { return in_model() && second_ == "merges"; }
  bool in_vocab(int depth) const {
    if (only_vocab_) return depth == 1;
    return depth == 3 && in_model() && second_ == "vocab" && !vocab_is_list_;
  }
  bool in_vocab_list() const { return vocab_is_list_ && in_model() && second_ == "vocab"; }

  void count() {
    if (in_vocab_list()) return;  // not kept
    if (++values_ <= kValueLimit) return;
    throw DataError(problem(cat("more than ", with_thousands(kValueLimit),
                                " values outside model.vocab and model.merges"))
                        .at(name_)
                        .must("have fewer"));
  }

  // The depth of a key is that of its object's values.
  bool key(int depth, json& parsed) {
    std::string& key = parsed.get_ref<std::string&>();
    if (in_vocab(depth)) {
      token_ = std::move(key);  // whether it comes twice, the vocabulary will tell
      return false;
    }
    if (depth == 1) top_ = key;
    if (depth == 2) second_ = key;
    return true;
  }

  bool value(int depth, const json& parsed) {
    if (in_vocab(depth)) {
      const int32_t id = id_of(parsed, token_, vocab_place());
      result_.vocab.emplace_back(std::move(token_), id);
      return false;
    }
    if (depth == 3 && in_merges()) {
      merge(parsed);
      return false;
    }
    count();
    return true;
  }

  void merge(const json& parsed) {
    std::pair<std::string, std::string> pair;
    if (parsed.is_string()) {
      const auto& line = parsed.get_ref<const std::string&>();
      if (line.starts_with("#version")) return;  // the head of a merges.txt, as in the library
      if (split_merge(line, pair)) return result_.merges.push_back(std::move(pair));
    } else if (parsed.is_array() && parsed.size() == 2 && parsed[0].is_string() &&
               parsed[1].is_string()) {
      values_ -= std::min<size_t>(values_, 3);
      result_.merges.emplace_back(parsed[0].get<std::string>(), parsed[1].get<std::string>());
      return;
    }
    throw DataError(problem(cat("entry ", result_.merges.size(), " is ",
                                parsed.is_string() ? shown(parsed.get<std::string>())
                                                   : std::string(parsed.type_name())))
                        .at(cat(name_, ": model.merges"))
                        .must("be \"left right\" or [\"left\", \"right\"]"));
  }

  TokenizerJson& result_;
  const std::string& name_;
  bool only_vocab_;
  bool vocab_is_list_ = false;
  std::string top_, second_, token_;
  size_t values_ = 0;
};

TokenizerJson parse(std::string_view text, const std::string& name, bool only_vocab) {
  check_size(text, name);
  TokenizerJson result;
  Watcher watcher(result, name, only_vocab);
  result.tree = parse_json_tree(
      text, name, {.max_depth = kDepthLimit, .watch = [&](int depth, Event event, json& parsed) {
                     return watcher(depth, event, parsed);
                   }});
  if (!result.tree.is_object()) {
    throw DataError(problem(cat("JSON ", result.tree.type_name())).at(name).must("be an object"));
  }
  return result;
}

}  // namespace

TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& name) {
  return parse(text, name, false);
}

std::vector<std::pair<std::string, int32_t>> parse_vocab_json(std::string_view text,
                                                              const std::string& name) {
  TokenizerJson result = parse(text, name, true);
  return std::move(result.vocab);
}

std::string shown(const std::string& token) {
  constexpr size_t kShown = 80;
  if (token.size() <= kShown) return token;
  return cat(beginning_of(token, kShown), " (", token.size(), " bytes)");
}

bool split_merge(const std::string& line, std::pair<std::string, std::string>& merge) {
  const size_t space = line.find(' ');
  if (space == line.npos || line.find(' ', space + 1) != line.npos) return false;
  merge = {line.substr(0, space), line.substr(space + 1)};
  return true;
}

JsonObject::JsonObject(const json& value, std::string where)
    : value_(&value), where_(std::move(where)) {
  if (!value.is_object()) {
    throw DataError(problem(cat("is ", value.type_name())).at(where_).must("be an object"));
  }
}

void JsonObject::wrong(const std::string& key, const char* kind) const {
  const auto found = value_->find(key);
  const std::string is = found == value_->end() ? "missing" : cat("of kind ", found->type_name());
  throw DataError(problem(cat("\"", key, "\" is ", is)).at(where_).must(cat("be ", kind)));
}

bool JsonObject::has(const std::string& key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const json& JsonObject::value(const std::string& key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) wrong(key, "given");
  return *found;
}

bool JsonObject::flag(const std::string& key) const {
  const auto found = value_->find(key);
  if (found == value_->end() || !found->is_boolean()) wrong(key, "true or false");
  return found->get<bool>();
}

bool JsonObject::flag(const std::string& key, bool absent) const {
  return has(key) ? flag(key) : absent;
}

std::string JsonObject::text(const std::string& key) const {
  const auto found = value_->find(key);
  if (found == value_->end() || !found->is_string()) wrong(key, "a string");
  return found->get<std::string>();
}

std::string JsonObject::text(const std::string& key, const std::string& absent) const {
  return has(key) ? text(key) : absent;
}

int32_t JsonObject::number(const std::string& key) const {
  const auto found = value_->find(key);
  if (found == value_->end() || !found->is_number_unsigned() ||
      found->get<uint64_t>() > std::numeric_limits<int32_t>::max()) {
    wrong(key, "a whole number from 0 to 2147483647");
  }
  return static_cast<int32_t>(found->get<uint64_t>());
}

std::string JsonObject::character(const std::string& key) const {
  const std::string found = text(key);
  size_t pos = 0;
  if (!found.empty()) next_code_point(found, pos);
  if (found.empty() || pos != found.size()) wrong(key, "one character");
  return found;
}

JsonObject JsonObject::object(const std::string& key) const {
  return JsonObject(value(key), cat(where_, ".", key));
}

std::vector<JsonObject> JsonObject::objects(const std::string& key) const {
  const auto found = value_->find(key);
  if (found == value_->end() || !found->is_array()) wrong(key, "a list");
  std::vector<JsonObject> list;
  for (const json& element : *found) {
    list.emplace_back(element, cat(where_, ".", key, "[", list.size(), "]"));
  }
  return list;
}

std::vector<std::string> JsonObject::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : value_->items()) keys.push_back(key);
  return keys;
}

void JsonObject::only(std::initializer_list<const char*> known) const {
  for (const auto& [key, value] : value_->items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    throw DataError(problem(cat("the key \"", shown(key), "\" is not known"))
                        .at(where_)
                        .must(cat("have no keys but ", join(known)))
                        .remedy("It may change ids, so it is not passed over."));
  }
}

}  // namespace tptrain::tokenizer
