#include <algorithm>
#include <ctime>

#include "base/text.h"
#include "chat_template/template_evaluator.h"
#include "chat_template/template_text.h"

namespace tptrain::chat_template::jinja {

namespace {

using Shape = ListData::Shape;
using Names = std::vector<std::string_view>;

constexpr int64_t kLongestRange = 100000;  // as in Jinja's sandbox

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

/// What %`letter` stands for.
std::string time_part(const std::tm& now, char letter) {
  static constexpr const char* kMonths[] = {"January",   "February", "March",    "April",
                                            "May",       "June",     "July",     "August",
                                            "September", "October",  "November", "December"};
  static constexpr const char* kDays[] = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                          "Thursday", "Friday", "Saturday"};
  const auto digits = [](int value) { return value < 10 ? cat("0", value) : cat(value); };
  switch (letter) {
    case 'd':
      return digits(now.tm_mday);
    case 'm':
      return digits(now.tm_mon + 1);
    case 'Y':
      return std::to_string(now.tm_year + 1900);
    case 'y':
      return digits(now.tm_year % 100);
    case 'H':
      return digits(now.tm_hour);
    case 'M':
      return digits(now.tm_min);
    case 'S':
      return digits(now.tm_sec);
    case 'B':
      return kMonths[now.tm_mon];
    case 'b':
      return std::string(kMonths[now.tm_mon]).substr(0, 3);
    case 'A':
      return kDays[now.tm_wday];
    case 'a':
      return std::string(kDays[now.tm_wday]).substr(0, 3);
    case '%':
      return "%";
    default:
      throw ValueError{"this format of strftime_now is not built: of % only dmYyHMSBbAa%"};
  }
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
  // A time that is given is the same on every host.
  if (time_seconds_ < 0) {
    localtime_r(&seconds, &now);
  } else {
    gmtime_r(&seconds, &now);
  }
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    out += time_part(now, ++i < format.size() ? format[i] : '\0');
  }
  return out;
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
    return text_method(of.sourced(), name, arguments.values);
  }
  if (const Dict* dict = of.as<Dict>()) {
    spend((*dict)->items.size());
    return dict_method(**dict, name, arguments.values);
  }
  throw ValueError{cat(what, " is not built")};
}

Value Evaluator::text_method(const SourcedText& of, const std::string& name,
                             const std::vector<Value>& arguments) {
  const std::string& text = of.bytes();
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    check_count(arguments, 0, 1, name);
    const bool all = arguments.empty() || arguments[0].is<None>();
    const std::string characters = all ? "" : text_argument(arguments, 0, name);
    if (!all && characters.empty()) return make_text(of);
    spend(text.size() / 8 * (1 + characters.size()));
    return this->text(stripped(of, characters, name != "rstrip", name != "lstrip"));
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
        split_text(of, separated ? &text_argument(arguments, 0, name) : nullptr, most);
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
    text_argument(arguments, 1, name);
    return this->text(replaced(of, text_argument(arguments, 0, name), arguments[1].sourced()));
  }
  if (name == "upper" || name == "lower" || name == "capitalize") {
    check_count(arguments, 0, 0, name);
    return this->text(ascii_cased(of, name));
  }
  if (name == "join") {
    check_count(arguments, 1, 1, name);
    SourcedText joined;
    const std::vector<Value> parts = items_of(arguments[0]);
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i > 0) joined.append(of);
      text_argument(parts, i, name);
      joined.append(parts[i].sourced());
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

}  // namespace tptrain::chat_template::jinja
