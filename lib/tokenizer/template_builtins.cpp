#include <algorithm>
#include <ctime>

#include "base/text.h"
#include "tokenizer/template_evaluator.h"

namespace tptrain::tokenizer::jinja {

namespace {

using Shape = ListData::Shape;
using Names = std::vector<std::string_view>;

constexpr int64_t kLongestRange = 100000;  // as in Jinja's sandbox
constexpr int64_t kWidestIndent = 16;

const Names& attributes_of(const Value& value) {
  static const Names kText = {
      "capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
      "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
      "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
      "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
      "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
      "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
      "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
      "swapcase",     "title",       "translate", "upper",      "zfill"};
  static const Names kList = {"append", "clear", "copy",   "count",   "extend", "index",
                              "insert", "pop",   "remove", "reverse", "sort"};
  static const Names kDict = {"clear", "copy",    "fromkeys",   "get",    "items", "keys",
                              "pop",   "popitem", "setdefault", "update", "values"};
  static const Names kNumber = {
      "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
      "from_bytes",       "fromhex",   "hex",        "imag",      "is_integer",
      "numerator",        "real",      "to_bytes"};
  static const Names kNone = {};
  if (value.is<Text>()) return kText;
  if (value.is<List>()) return kList;
  if (value.is<Dict>()) return kDict;
  return value.is_number() ? kNumber : kNone;
}

/// strip() and its kin: `characters` empty means white space.
std::string stripped(std::string_view text, const std::string& characters, bool begin, bool end) {
  const std::vector<std::string_view> set = characters_of(characters);
  const auto in_set = [&](std::string_view part) -> size_t {
    for (const std::string_view character : set) {
      if (part.starts_with(character)) return character.size();
    }
    return 0;
  };
  const auto in_set_at_end = [&](std::string_view part) -> size_t {
    for (const std::string_view character : set) {
      if (part.ends_with(character)) return character.size();
    }
    return 0;
  };
  const bool spaces = characters.empty();
  while (begin) {
    const size_t length = spaces ? space_at_begin(text) : in_set(text);
    if (length == 0) break;
    text.remove_prefix(length);
  }
  while (end) {
    const size_t length = spaces ? space_at_end(text) : in_set_at_end(text);
    if (length == 0) break;
    text.remove_suffix(length);
  }
  return std::string(text);
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
  if (from.empty()) throw ValueError{"replacing an empty string is not built"};
  std::string result;
  size_t at = 0;
  for (size_t found = text.find(from); found != std::string::npos; found = text.find(from, at)) {
    result.append(text, at, found - at);
    result += to;
    at = found + from.size();
    if (result.size() > (size_t{64} << 20)) throw ValueError{"more than 64 MiB of text"};
  }
  return result.append(text, at);
}

/// Upper and lower case are Python's own for other characters; only ASCII is built.
std::string ascii_cased(std::string text, const std::string& name) {
  const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
  if (!ascii) throw ValueError{cat(name, " of a text that is not all ASCII is not built")};
  for (size_t i = 0; i < text.size(); ++i) {
    const bool up = name == "upper" || (name == "capitalize" && i == 0);
    char& c = text[i];
    if (up && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (!up && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::vector<Value> split_text(const std::string& text, const std::string* separator, int64_t most) {
  std::vector<Value> parts;
  std::string_view rest = text;
  const auto may_split = [&] { return most < 0 || static_cast<int64_t>(parts.size()) < most; };
  if (separator != nullptr) {
    if (separator->empty()) throw ValueError{"split with an empty separator"};
    for (size_t at = rest.find(*separator); at != rest.npos && may_split();
         at = rest.find(*separator)) {
      parts.push_back(make_text(std::string(rest.substr(0, at))));
      rest.remove_prefix(at + separator->size());
    }
    parts.push_back(make_text(std::string(rest)));
    return parts;
  }
  while (true) {
    while (const size_t space = space_at_begin(rest)) rest.remove_prefix(space);
    if (rest.empty()) return parts;
    if (!may_split()) break;
    size_t end = 0;
    while (end < rest.size() && space_at_begin(rest.substr(end)) == 0) ++end;
    parts.push_back(make_text(std::string(rest.substr(0, end))));
    rest.remove_prefix(end);
  }
  parts.push_back(make_text(stripped(rest, "", false, true)));
  return parts;
}

const std::string& text_argument(const std::vector<Value>& arguments, size_t i,
                                 const std::string& of) {
  if (i >= arguments.size() || !arguments[i].is<Text>()) {
    throw ValueError{cat(of, " takes a string as argument ", i + 1, ", got ",
                         i < arguments.size() ? kind_of(arguments[i]) : "nothing")};
  }
  return arguments[i].text();
}

void check_count(const std::vector<Value>& arguments, size_t least, size_t most,
                 const std::string& of) {
  if (arguments.size() < least || arguments.size() > most) {
    throw ValueError{cat(of, " with ", arguments.size(), " arguments is not built")};
  }
}

void no_named(const Arguments& arguments, const std::string& of) {
  if (arguments.named.empty()) return;
  throw ValueError{cat("the argument ", arguments.named[0].first, " of ", of, " is not built")};
}

}  // namespace

bool is_python_attribute(const Value& value, std::string_view name) {
  const Names& names = attributes_of(value);
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value function_named(std::string_view name) {
  for (const char* known : {"raise_exception", "strftime_now", "range", "namespace", "dict",
                            "cycler", "joiner", "lipsum"}) {
    if (name == known) return Function{known};
  }
  return Undefined{std::string(name)};
}

Value Evaluator::function(size_t at, std::string_view name, Arguments arguments) {
  const std::string what(name);
  if (name == "namespace" || name == "dict") {
    check_count(arguments.values, 0, 0, what);
    Value made = make_dict(arguments.named);
    if (name == "dict") return made;
    auto space = std::make_shared<NamespaceData>();
    space->attributes = std::move(arguments.named);
    return Namespace(std::move(space));
  }
  no_named(arguments, what);
  const std::vector<Value>& values = arguments.values;
  if (name == "raise_exception") {
    check_count(values, 1, 1, what);
    throw Refusal{at, text_of(values[0])};
  }
  if (name == "strftime_now") {
    check_count(values, 1, 1, what);
    return text(time_text(text_argument(values, 0, what)));
  }
  if (name == "range") {
    check_count(values, 1, 3, what);
    for (const Value& value : values) {
      if (!value.is<int64_t>()) throw ValueError{cat("range takes integers, got ", kind_of(value))};
    }
    const int64_t begin = values.size() == 1 ? 0 : values[0].integer();
    const int64_t end = values[values.size() == 1 ? 0 : 1].integer();
    const int64_t step = values.size() == 3 ? values[2].integer() : 1;
    if (step == 0) throw ValueError{"range with step 0"};
    std::vector<Value> numbers;
    for (int64_t i = begin; step > 0 ? i < end : i > end;) {
      if (static_cast<int64_t>(numbers.size()) == kLongestRange) {
        throw ValueError{cat("a range of more than ", kLongestRange)};
      }
      numbers.push_back(i);
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    spend(numbers.size());
    return make_list(std::move(numbers), Shape::view);
  }
  throw ValueError{cat("the function ", name, " is not built")};
}

std::string Evaluator::time_text(const std::string& format) const {
  const std::time_t seconds = time_seconds_ < 0 ? std::time(nullptr) : time_seconds_;
  std::tm now{};
  localtime_r(&seconds, &now);
  static constexpr const char* kMonths[] = {"January",   "February", "March",    "April",
                                            "May",       "June",     "July",     "August",
                                            "September", "October",  "November", "December"};
  static constexpr const char* kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                          "Thursday", "Friday", "Saturday"};
  const auto digits = [](int value) { return value < 10 ? cat("0", value) : cat(value); };
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const char letter = ++i < format.size() ? format[i] : '\0';
    switch (letter) {
      case 'd':
        out += digits(now.tm_mday);
        break;
      case 'm':
        out += digits(now.tm_mon + 1);
        break;
      case 'Y':
        out += std::to_string(now.tm_year + 1900);
        break;
      case 'y':
        out += digits(now.tm_year % 100);
        break;
      case 'H':
        out += digits(now.tm_hour);
        break;
      case 'M':
        out += digits(now.tm_min);
        break;
      case 'S':
        out += digits(now.tm_sec);
        break;
      case 'B':
        out += kMonths[now.tm_mon];
        break;
      case 'b':
        out += std::string(kMonths[now.tm_mon]).substr(0, 3);
        break;
      case 'A':
        out += kDays[now.tm_wday];
        break;
      case 'a':
        out += std::string(kDays[now.tm_wday]).substr(0, 3);
        break;
      case '%':
        out += '%';
        break;
      default:
        throw ValueError{"this format of strftime_now is not built: of % only dmYyHMSBbAa%"};
    }
  }
  return out;
}

Value Evaluator::filter(const std::string& name, const Value& value, const Arguments& arguments) {
  const std::vector<Value>& given = arguments.values;
  if (name == "tojson") return to_json(value, arguments);
  if (name == "map" || name == "select" || name == "reject" || name == "selectattr" ||
      name == "rejectattr") {
    return filter_list(name, value, arguments);
  }
  if (name == "default" || name == "d") {
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
  no_named(arguments, cat("the filter ", name));
  if (name == "trim") {
    check_count(given, 0, 1, name);
    const std::string of = text_of(value);
    spend(of.size() / 8);
    return text(stripped(of, given.empty() ? "" : text_argument(given, 0, name), true, true));
  }
  if (name == "replace") {
    check_count(given, 2, 2, name);
    const std::string of = text_of(value);
    spend(of.size() / 8);
    return text(replaced(of, text_argument(given, 0, name), text_argument(given, 1, name)));
  }
  if (name == "join") {
    check_count(given, 0, 1, name);
    const std::string separator = given.empty() ? "" : text_argument(given, 0, name);
    std::string joined;
    const char* before = "";
    for (const Value& item : items_of(value)) {
      joined += before;
      before = separator.c_str();
      joined += text_of(item);
      spend(1 + (separator.size() + weight_of(item)));
    }
    return text(std::move(joined));
  }
  check_count(given, 0, 0, cat("the filter ", name));
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
  if (name == "safe") {
    throw ValueError{"the filter safe is built at the end of an output only"};
  }
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

Value Evaluator::method(const Value& of, const std::string& name, const Arguments& arguments) {
  const std::string what = cat("the method ", name, " of ", kind_of(of));
  if (of.is<Undefined>()) throw ValueError{cat(kind_of(of), " has no method ", name)};
  if (!is_python_attribute(of, name)) {
    const Value member = attribute(of, name);
    if (const Macro* macro = member.as<Macro>()) return call_macro(*macro, arguments);
    throw ValueError{member.is<Undefined>() ? cat(kind_of(of), " has no method ", name)
                                            : cat("cannot call ", kind_of(member))};
  }
  no_named(arguments, what);
  if (of.is<Text>()) {
    spend(of.text().size() / 8);
    return text_method(of.text(), name, arguments.values);
  }
  if (const Dict* dict = of.as<Dict>()) {
    spend((*dict)->items.size());
    return dict_method(**dict, name, arguments.values);
  }
  throw ValueError{cat(what, " is not built")};
}

Value Evaluator::text_method(const std::string& text, const std::string& name,
                             const std::vector<Value>& arguments) {
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    check_count(arguments, 0, 1, name);
    const bool all = arguments.empty() || arguments[0].is<None>();
    const std::string characters = all ? "" : text_argument(arguments, 0, name);
    if (!all && characters.empty()) return this->text(text);
    spend(text.size() / 8 * (1 + characters.size()));
    return this->text(stripped(text, characters, name != "rstrip", name != "lstrip"));
  }
  if (name == "split") {
    check_count(arguments, 0, 2, name);
    const bool separated = !arguments.empty() && !arguments[0].is<None>();
    int64_t most = -1;
    if (arguments.size() == 2) {
      if (!arguments[1].is<int64_t>()) throw ValueError{"split with such a count"};
      most = arguments[1].integer();
    }
    std::vector<Value> parts =
        split_text(text, separated ? &text_argument(arguments, 0, name) : nullptr, most);
    spend(parts.size());
    return make_list(std::move(parts));
  }
  if (name == "startswith" || name == "endswith") {
    check_count(arguments, 1, 1, name);
    const auto fits = [&](const std::string& part) {
      return name == "startswith" ? text.starts_with(part) : text.ends_with(part);
    };
    if (shape_of(arguments[0]) == Shape::tuple) {
      const std::vector<Value> parts = items_of(arguments[0]);
      spend(weight_of(arguments[0]));
      for (size_t i = 0; i < parts.size(); ++i) {
        if (fits(text_argument(parts, i, name))) return true;
      }
      return false;
    }
    return fits(text_argument(arguments, 0, name));
  }
  if (name == "replace") {
    check_count(arguments, 2, 2, name);
    return this->text(
        replaced(text, text_argument(arguments, 0, name), text_argument(arguments, 1, name)));
  }
  if (name == "upper" || name == "lower" || name == "capitalize") {
    check_count(arguments, 0, 0, name);
    return this->text(ascii_cased(text, name));
  }
  if (name == "join") {
    check_count(arguments, 1, 1, name);
    std::string joined;
    const std::vector<Value> parts = items_of(arguments[0]);
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i > 0) joined += text;
      joined += text_argument(parts, i, name);
      spend(1 + text.size() + weight_of(parts[i]));
    }
    return this->text(std::move(joined));
  }
  throw ValueError{cat("the method ", name, " of a string is not built")};
}

Value Evaluator::dict_method(const DictData& dict, const std::string& name,
                             const std::vector<Value>& arguments) {
  if (name == "get") {
    check_count(arguments, 1, 2, name);
    if (arguments[0].is<List>() || arguments[0].is<Dict>()) throw ValueError{"get of such a key"};
    const Value* found = arguments[0].is<Text>() ? find(dict, arguments[0].text()) : nullptr;
    if (found != nullptr) return *found;
    return arguments.size() == 2 ? arguments[1] : Value(None{});
  }
  if (name != "items" && name != "keys" && name != "values") {
    throw ValueError{cat("the method ", name, " of a dictionary is not built")};
  }
  check_count(arguments, 0, 0, name);
  std::vector<Value> items;
  for (const auto& [key, value] : dict.items) {
    if (name == "items") {
      items.push_back(make_list({make_text(key), value}, Shape::tuple));
    } else {
      items.push_back(name == "keys" ? make_text(key) : value);
    }
  }
  return make_list(std::move(items), Shape::view);
}

}  // namespace tptrain::tokenizer::jinja
