#include "chat_template/template_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/utf8.h"

namespace tptrain::chat_template::jinja {

namespace {

constexpr int kDeepest = 100;
constexpr uint64_t kHeaviest = uint64_t{1} << 60;

int depth_of(const Value& value) {
  if (const List* list = value.as<List>()) return (*list)->depth;
  if (const Dict* dict = value.as<Dict>()) return (*dict)->depth;
  // Those live in frames: a container could carry them out, or make a circle of them.
  if (value.is<Namespace>() || value.is<Function>() || value.is<Macro>() || value.is<Loop>()) {
    throw ValueError{cat(kind_of(value), " inside a list, dictionary or namespace is not built")};
  }
  return 0;
}

int depth_around(int deepest) {
  if (deepest >= kDeepest) {
    throw ValueError{cat("lists and dictionaries nested deeper than ", kDeepest)};
  }
  return deepest + 1;
}

/// repr() of a float: the shortest digits that read back alike; an exponent below 1e-4 and from
/// 1e16 on.
std::string real_text(double value) {
  if (std::isnan(value) || std::isinf(value)) throw ValueError{"a number that is not finite"};
  char digits[32];
  const auto [end, error] =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific);
  const std::string scientific(digits, end);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return scientific;
  const auto [fixed_end, fixed_error] =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::fixed);
  std::string text(digits, fixed_end);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

/// Characters that str.isspace() names, beside ASCII's.
bool is_wide_space(std::string_view character) {
  static constexpr std::string_view kSpaces[] = {
      "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
      "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
      "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
      "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"};
  return std::find(std::begin(kSpaces), std::end(kSpaces), character) != std::end(kSpaces);
}

bool is_narrow_space(char c) {
  return (c >= '\t' && c <= '\r') || (c >= '\x1C' && c <= '\x1F') || c == ' ';
}

}  // namespace

double Value::real() const {
  if (const double* number = as<double>()) return *number;
  return static_cast<double>(integer());
}

int64_t Value::integer() const {
  if (const bool* flag = as<bool>()) return *flag ? 1 : 0;
  return *as<int64_t>();
}

Value make_text(SourcedText text) { return std::make_shared<const SourcedText>(std::move(text)); }

Value make_list(std::vector<Value> items, ListData::Shape shape) {
  int deepest = 0;
  uint64_t weight = 1;
  for (const Value& item : items) {
    deepest = std::max(deepest, depth_of(item));
    weight = std::min(weight + weight_of(item), kHeaviest);
  }
  return List(std::make_shared<const ListData>(
      ListData{std::move(items), shape, depth_around(deepest), weight}));
}

Value make_dict(std::vector<std::pair<std::string, Value>> items) {
  int deepest = 0;
  DictData dict;
  for (auto& [key, item] : items) {
    deepest = std::max(deepest, depth_of(item));
    dict.weight = std::min(dict.weight + weight_of(item) + key.size() / 8, kHeaviest);
    if (const Value* known = find(dict, key)) {
      const_cast<Value&>(*known) = std::move(item);  // the dictionary is still ours
    } else {
      dict.items.emplace_back(std::move(key), std::move(item));
    }
  }
  dict.depth = depth_around(deepest);
  return Dict(std::make_shared<const DictData>(std::move(dict)));
}

Value value_of(const nlohmann::ordered_json& json, Source source) {
  switch (json.type()) {
    case nlohmann::json::value_t::null:
      return None{};
    case nlohmann::json::value_t::boolean:
      return json.get<bool>();
    case nlohmann::json::value_t::number_integer:
      return json.get<int64_t>();
    case nlohmann::json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX) throw ValueError{"an integer of more than 64 bits"};
      return json.get<int64_t>();
    case nlohmann::json::value_t::number_float:
      return json.get<double>();
    case nlohmann::json::value_t::string: {
      std::string text = json.get<std::string>();
      if (first_invalid_utf8(text) != std::string::npos) throw ValueError{"a text is no UTF-8"};
      return make_text({std::move(text), source});
    }
    case nlohmann::json::value_t::array: {
      std::vector<Value> items;
      for (const auto& item : json) items.push_back(value_of(item, source));
      return make_list(std::move(items));
    }
    case nlohmann::json::value_t::object: {
      std::vector<std::pair<std::string, Value>> items;
      for (const auto& [key, item] : json.items()) items.emplace_back(key, value_of(item, source));
      return make_dict(std::move(items));
    }
    default:
      throw ValueError{"JSON of a kind that is not known"};
  }
}

const Value* find(const DictData& dict, std::string_view key) {
  for (const auto& [name, value] : dict.items) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::string kind_of(const Value& value) {
  if (const Undefined* undefined = value.as<Undefined>()) {
    return undefined->name.empty() ? "an undefined value"
                                   : cat("the undefined \"", undefined->name, "\"");
  }
  if (value.is<None>()) return "none";
  if (value.is<bool>()) return "a boolean";
  if (value.is<int64_t>()) return "an integer";
  if (value.is<double>()) return "a float";
  if (value.is<Text>()) return "a string";
  if (value.is<Safe>()) return "a string that safe has marked";
  if (const auto shape = shape_of(value)) {
    using Shape = ListData::Shape;
    return *shape == Shape::list    ? "a list"
           : *shape == Shape::tuple ? "a tuple"
           : *shape == Shape::view  ? "a view"
                                    : "a generator";
  }
  if (value.is<Dict>()) return "a dictionary";
  if (value.is<Namespace>()) return "a namespace";
  if (value.is<Function>()) return "a function";
  if (value.is<Macro>()) return "a macro";
  return "the loop";
}

uint64_t weight_of(const Value& value) {
  if (value.is<Text>()) return 1 + value.text().size() / 8;
  if (const List* list = value.as<List>()) return (*list)->weight;
  if (const Dict* dict = value.as<Dict>()) return (*dict)->weight;
  return 1;
}

std::optional<ListData::Shape> shape_of(const Value& value) {
  const List* list = value.as<List>();
  return list == nullptr ? std::nullopt : std::optional((*list)->shape);
}

bool truth_of(const Value& value) {
  if (value.is<Undefined>() || value.is<None>()) return false;
  if (value.is_number()) return value.real() != 0;
  if (value.is<Text>()) return !value.text().empty();
  if (const List* list = value.as<List>()) {
    return (*list)->shape == ListData::Shape::generator || !(*list)->items.empty();
  }
  if (const Dict* dict = value.as<Dict>()) return !(*dict)->items.empty();
  return true;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is<double>() || b.is<double>()) return a.real() == b.real();
    return a.integer() == b.integer();
  }
  if (a.is<Text>() && b.is<Text>()) return a.text() == b.text();
  if ((a.is<None>() && b.is<None>()) || (a.is<Undefined>() && b.is<Undefined>())) return true;
  const List* list_a = a.as<List>();
  const List* list_b = b.as<List>();
  if (list_a != nullptr && list_b != nullptr) {
    using Shape = ListData::Shape;
    for (const List* list : {list_a, list_b}) {
      if ((*list)->shape == Shape::view || (*list)->shape == Shape::generator) {
        throw ValueError{cat("comparing ", kind_of(*list), " is not built")};
      }
    }
    if (*list_a == *list_b) return true;
    return (*list_a)->shape == (*list_b)->shape &&
           std::equal((*list_a)->items.begin(), (*list_a)->items.end(), (*list_b)->items.begin(),
                      (*list_b)->items.end(), equal);
  }
  const Dict* dict_a = a.as<Dict>();
  const Dict* dict_b = b.as<Dict>();
  if (dict_a != nullptr && dict_b != nullptr) {
    if (*dict_a == *dict_b) return true;
    if ((*dict_a)->items.size() != (*dict_b)->items.size()) return false;
    for (const auto& [key, value] : (*dict_a)->items) {
      const Value* other = find(**dict_b, key);
      if (other == nullptr || !equal(value, *other)) return false;
    }
    return true;
  }
  return a.is<Namespace>() && b.is<Namespace>() && *a.as<Namespace>() == *b.as<Namespace>();
}

bool less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is<double>() || b.is<double>()) return a.real() < b.real();
    return a.integer() < b.integer();
  }
  // Code points and their UTF-8 are in the same order.
  if (a.is<Text>() && b.is<Text>()) return a.text() < b.text();
  throw ValueError{cat("cannot order ", kind_of(a), " and ", kind_of(b))};
}

bool contains(const Value& b, const Value& a) {
  if (b.is<Undefined>()) return false;
  if (b.is<Text>()) {
    if (!a.is<Text>()) throw ValueError{cat("cannot look for ", kind_of(a), " in a string")};
    return b.text().find(a.text()) != std::string::npos;
  }
  if (b.is<List>()) {
    const std::vector<Value> items = items_of(b);
    return std::any_of(items.begin(), items.end(),
                       [&](const Value& item) { return equal(item, a); });
  }
  if (const Dict* dict = b.as<Dict>()) {
    if (a.is<List>() || a.is<Dict>()) throw ValueError{cat(kind_of(a), " as a key")};
    return a.is<Text>() && find(**dict, a.text()) != nullptr;
  }
  throw ValueError{cat("cannot look into ", kind_of(b))};
}

SourcedText text_of(const Value& value) {
  if (value.is<Undefined>()) return "";
  if (value.is<None>()) return "None";
  if (const bool* flag = value.as<bool>()) return *flag ? "True" : "False";
  if (const int64_t* number = value.as<int64_t>()) return std::to_string(*number);
  if (const double* number = value.as<double>()) return real_text(*number);
  if (value.is<Text>()) return value.sourced();
  if (const Safe* safe = value.as<Safe>()) return *safe->text;
  throw ValueError{cat(kind_of(value), " as text is not built (Python's spelling); tojson is")};
}

std::vector<Value> items_of(const Value& value) {
  if (value.is<Undefined>()) return {};
  if (const List* list = value.as<List>()) {
    if ((*list)->spent) throw ValueError{"going over a generator a second time: list makes a list"};
    (*list)->spent = (*list)->shape == ListData::Shape::generator;
    return (*list)->items;
  }
  std::vector<Value> items;
  if (const Dict* dict = value.as<Dict>()) {
    for (const auto& [key, item] : (*dict)->items) items.push_back(make_text(key));
  } else if (value.is<Text>()) {
    size_t at = 0;
    for (const std::string_view character : characters_of(value.text())) {
      items.push_back(make_text(value.sourced().part(at, character.size())));
      at += character.size();
    }
  } else {
    throw ValueError{cat("cannot go over ", kind_of(value))};
  }
  return items;
}

size_t space_at_begin(std::string_view text) {
  if (text.empty()) return 0;
  if (is_narrow_space(text[0])) return 1;
  const size_t length = utf8_length(text);
  return length > 1 && is_wide_space(text.substr(0, length)) ? length : 0;
}

size_t space_at_end(std::string_view text) {
  if (text.empty()) return 0;
  if (is_narrow_space(text.back())) return 1;
  for (const size_t length : {size_t{2}, size_t{3}}) {
    if (text.size() >= length && is_wide_space(text.substr(text.size() - length))) return length;
  }
  return 0;
}

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> characters;
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::max<size_t>(utf8_length(text.substr(at)), 1);
    characters.push_back(text.substr(at, length));
    at += length;
  }
  return characters;
}

}  // namespace tptrain::chat_template::jinja
