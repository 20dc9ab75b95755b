#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/text.h"
#include "chat_template/template_evaluator.h"
#include "chat_template/template_text.h"

namespace tptrain::chat_template::jinja {

namespace {

using Shape = ListData::Shape;

constexpr int64_t kWidestIndent = 16;

std::string ascii_lower(const std::string& key) {
  std::string lower;
  for (const char c : key) {
    if (static_cast<unsigned char>(c) >= 0x80)
      throw ValueError{"dictsort of keys that are not ASCII is not built"};
    lower += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return lower;
}

/// Of a text only where it is decimal digits: Python takes more, and gives 0 for the rest.
Value integer_of(const Value& value) {
  if (value.is<int64_t>() || value.is<bool>()) return value.integer();
  if (const double* number = value.as<double>(); number != nullptr && std::abs(*number) < 0x1p63)
    return static_cast<int64_t>(*number);
  if (!value.is<Text>()) throw ValueError{cat("int of ", kind_of(value), " is not built")};
  const SourcedText stripped_text = stripped(value.sourced(), "", true, true);
  std::string_view digits = stripped_text.bytes();
  if (digits.starts_with("+") && !digits.starts_with("+-")) digits.remove_prefix(1);
  int64_t integer = 0;
  const char* const end = digits.data() + digits.size();
  const auto [at, error] = std::from_chars(digits.data(), end, integer);
  if (error != std::errc{} || at != end)
    throw ValueError{"int of a text that is no decimal number is not built"};
  return integer;
}

/// Pairs of key and value, capitals where their small letters are.
Value sorted_by_key(const Value& value) {
  const Dict* dict = value.as<Dict>();
  if (dict == nullptr) throw ValueError{cat("dictsort of ", kind_of(value))};
  std::vector<std::pair<std::string, Value>> sorted;
  for (const auto& [key, entry] : (*dict)->items)
    sorted.emplace_back(ascii_lower(key),
                        make_list({make_text(key), entry}, ListData::Shape::tuple));
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Value> pairs;
  for (auto& [key, pair] : sorted) pairs.push_back(std::move(pair));
  return make_list(std::move(pairs));
}

Value or_default(const std::string& name, const Value& value, const Arguments& arguments) {
  const std::vector<Value>& given = arguments.values;
  Value otherwise = given.empty() ? make_text("") : given[0];
  bool falsy_too = given.size() > 1 && truth_of(given[1]);
  check_count(given, 0, 2, name);
  for (const auto& [key, argument] : arguments.named) {
    if (key == "default_value") {
      otherwise = argument;
    } else if (key == "boolean") {
      falsy_too = truth_of(argument);
    } else {
      throw ValueError{cat("the argument ", key, " of default is not built")};
    }
  }
  return value.is<Undefined>() || (falsy_too && !truth_of(value)) ? otherwise : value;
}

}  // namespace

Value Evaluator::filter(const std::string& name, const Value& value, const Arguments& arguments) {
  const std::vector<Value>& given = arguments.values;
  if (name == "tojson") return to_json(value, arguments);
  if (name == "map" || name == "select" || name == "reject" || name == "selectattr" ||
      name == "rejectattr") {
    return filter_list(name, value, arguments);
  }
  if (name == "default" || name == "d") return or_default(name, value, arguments);
  no_named(arguments, cat("the filter ", name));
  if (name == "trim") {
    check_count(given, 0, 1, name);
    const SourcedText of = text_of(value);
    spend(of.size() / 8);
    return text(stripped(of, given.empty() ? "" : text_argument(given, 0, name), true, true));
  }
  if (name == "replace") {
    check_count(given, 2, 2, name);
    const SourcedText of = text_of(value);
    spend(of.size() / 8);
    text_argument(given, 1, name);
    return text(replaced(of, text_argument(given, 0, name), given[1].sourced()));
  }
  if (name == "join") return joined(value, given);
  check_count(given, 0, 0, cat("the filter ", name));
  return plain_filter(name, value);
}

Value Evaluator::joined(const Value& value, const std::vector<Value>& given) {
  check_count(given, 0, 1, "join");
  const std::string separator = given.empty() ? "" : text_argument(given, 0, "join");
  SourcedText joined;
  bool first = true;
  for (const Value& item : items_of(value)) {
    if (!first) joined.append(given.empty() ? SourcedText() : given[0].sourced());
    first = false;
    joined.append(text_of(item));
    spend(1 + (separator.size() + weight_of(item)));
  }
  return text(std::move(joined));
}

Value Evaluator::plain_filter(const std::string& name, const Value& value) {
  if (name == "upper" || name == "lower" || name == "capitalize") {
    return text(ascii_cased(text_of(value), name));
  }
  if (name == "string") return text(text_of(value));
  if (name == "length" || name == "count") {
    if (value.is<Undefined>()) return int64_t{0};
    if (shape_of(value) == Shape::generator || value.is_number() || value.is<None>()) {
      throw ValueError{cat(kind_of(value), " has no length")};
    }
    const List* list = value.as<List>();
    const Dict* dict = value.as<Dict>();
    if (list != nullptr) return static_cast<int64_t>((*list)->items.size());
    if (dict != nullptr) return static_cast<int64_t>((*dict)->items.size());
    spend(weight_of(value));
    return static_cast<int64_t>(items_of(value).size());
  }
  if (name == "list") {
    spend(weight_of(value));
    return make_list(items_of(value));
  }
  if (name == "first" || name == "last") {
    if (name == "last" && shape_of(value) == Shape::generator) {
      throw ValueError{"a generator has no last entry: list makes a list"};
    }
    spend(weight_of(value));
    const std::vector<Value> items = items_of(value);
    if (items.empty()) return Undefined{};
    return name == "first" ? items.front() : items.back();
  }
  if (name == "items") {
    if (value.is<Undefined>()) return make_list({}, Shape::generator);
    const Dict* dict = value.as<Dict>();
    if (dict == nullptr) throw ValueError{cat("items of ", kind_of(value))};
    const Value view = dict_method(**dict, "items", {});
    return make_list(items_of(view), Shape::generator);
  }
  if (name == "int") return integer_of(value);
  if (name == "dictsort") return sorted_by_key(value);
  if (name == "safe") return Safe{std::make_shared<const SourcedText>(text_of(value))};
  throw ValueError{cat("the filter ", name, " is not built")};
}

Value Evaluator::to_json(const Value& value, const Arguments& arguments) {
  int indent = -1;
  if (!arguments.values.empty())
    throw ValueError{"tojson with arguments without names is not built"};
  for (const auto& [name, argument] : arguments.named) {
    const bool number = argument.is<int64_t>();
    if (name == "indent" && number && argument.integer() >= 0 &&
        argument.integer() <= kWidestIndent) {
      indent = static_cast<int>(argument.integer());
    } else if (name == "indent" && argument.is<None>()) {
      indent = -1;
    } else if ((name == "ensure_ascii" || name == "sort_keys") && argument.is<bool>() &&
               !argument.integer()) {
      // what it does anyway
    } else {
      throw ValueError{cat("this argument of tojson is not built: ", name)};
    }
  }
  // A line of an entry may begin with its depth's worth of indentation.
  spend(weight_of(value) * (indent < 0 ? 1 : 1 + indent));
  return text(json_of(value, indent));
}

Value Evaluator::filter_list(const std::string& name, const Value& value,
                             const Arguments& arguments) {
  std::vector<Value> given = arguments.values;
  const bool by_attribute = name == "selectattr" || name == "rejectattr" || name == "map";
  if (name == "map") {
    if (arguments.named.size() != 1 || arguments.named[0].first != "attribute" || !given.empty()) {
      throw ValueError{"map is built with attribute=... only"};
    }
    given.push_back(arguments.named[0].second);
  } else {
    no_named(arguments, cat("the filter ", name));
  }
  std::string path;
  if (by_attribute) {
    path = text_argument(given, 0, name);
    given.erase(given.begin());
    if (path.find('.') != std::string::npos ||
        path.find_first_not_of("0123456789") == std::string::npos) {
      throw ValueError{cat("the attribute \"", path, "\" of ", name, " is not built: a name is")};
    }
  }
  const std::string test_name = given.empty() ? "" : text_argument(given, 0, name);
  if (!given.empty()) given.erase(given.begin());
  const bool wanted = name == "select" || name == "selectattr";

  std::vector<Value> chosen;
  for (const Value& entry : items_of(value)) {
    spend(1);
    const Value subject = by_attribute ? item(entry, make_text(path)) : entry;
    if (name == "map") {
      chosen.push_back(subject);
    } else if ((test_name.empty() ? truth_of(subject) : test(test_name, subject, given)) ==
               wanted) {
      chosen.push_back(entry);
    }
  }
  return make_list(std::move(chosen), Shape::generator);
}

bool Evaluator::test(const std::string& name, const Value& value,
                     const std::vector<Value>& arguments) {
  static constexpr std::pair<const char*, const char*> kComparisons[] = {
      {"equalto", "=="},    {"eq", "=="}, {"==", "=="}, {"ne", "!="},
      {"!=", "!="},         {"lt", "<"},  {"<", "<"},   {"lessthan", "<"},
      {"le", "<="},         {"<=", "<="}, {"gt", ">"},  {">", ">"},
      {"greaterthan", ">"}, {"ge", ">="}, {">=", ">="}, {"in", "in"}};
  const std::string what = cat("the test ", name);
  for (const auto& [known, operation] : kComparisons) {
    if (name != known) continue;
    check_count(arguments, 1, 1, what);
    return compare_pair(operation, value, arguments[0]);
  }
  if (name == "divisibleby") {
    check_count(arguments, 1, 1, what);
    return equal(arithmetic("%", value, arguments[0]), int64_t{0});
  }
  check_count(arguments, 0, 0, what);
  if (name == "defined") return !value.is<Undefined>();
  if (name == "undefined") return value.is<Undefined>();
  if (name == "none") return value.is<None>();
  if (name == "string") return value.is<Text>();
  if (name == "mapping") return value.is<Dict>();
  if (name == "boolean") return value.is<bool>();
  if (name == "true") return value.is<bool>() && truth_of(value);
  if (name == "false") return value.is<bool>() && !truth_of(value);
  if (name == "integer") return value.is<int64_t>();
  if (name == "float") return value.is<double>();
  if (name == "number") return value.is_number();
  if (name == "odd") return equal(arithmetic("%", value, int64_t{2}), int64_t{1});
  if (name == "even") return equal(arithmetic("%", value, int64_t{2}), int64_t{0});
  const bool of_python = value.is<Namespace>() || value.is<Function>() || value.is<Macro>() ||
                         value.is<Loop>() || shape_of(value).value_or(Shape::list) > Shape::tuple;
  if (name == "iterable" || name == "sequence") {
    if (of_python) throw ValueError{cat(what, " of ", kind_of(value), " is not built")};
    return value.is<Text>() || value.is<List>() || value.is<Dict>() || value.is<Undefined>();
  }
  throw ValueError{cat(what, " is not built")};
}

}  // namespace tptrain::chat_template::jinja
