#include "config/yaml_values.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>

#include "base/text.h"
#include "config/foreign_names.h"
#include "config/path_text.h"

namespace tptrain::config {
namespace {

// A quoted scalar is a text, whatever its characters.
bool is_quoted(const YAML::Node& node) {
  return node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str";
}

template <typename Integer>
struct ParsedInteger {
  std::optional<Integer> value;
  bool is_integer = false;  // integer characters, though perhaps out of range
};

template <typename Integer>
ParsedInteger<Integer> parse_integer(const std::string& text) {
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  const std::string digits = text.substr(sign);
  const bool all_digits = !digits.empty() && std::all_of(digits.begin(), digits.end(), [](char c) {
    return c >= '0' && c <= '9';
  });
  // 010 is 8 to YAML 1.1 and 10 to YAML 1.2: neither is a safe guess.
  if (!all_digits || (digits.size() > 1 && digits[0] == '0')) return {};
  Integer value = 0;
  const char* begin = text.data() + (text[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return {.value = {}, .is_integer = true};
  return {.value = value, .is_integer = true};
}

// Decimal numbers only: [+-] digits [. digits] [e [+-] digits].
std::optional<double> parse_real(const std::string& text) {
  const char* begin = text.data() + (!text.empty() && text[0] == '+' ? 1 : 0);
  const char* const limit = text.data() + text.size();
  const bool has_digit_or_point =
      begin != limit && std::all_of(begin, limit, [](char c) {
        return (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '+' || c == 'e' || c == 'E';
      });
  if (!has_digit_or_point) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(begin, limit, value);
  // Too small for a double reads as out of range too; such a number is refused as well.
  if (error != std::errc() || end != limit || !std::isfinite(value)) return std::nullopt;
  return value;
}

// "true" for True, yes, on, 1, as YAML 1.1 and Python write it; "" for what is no such word.
std::string boolean_of_other_notations(const std::string& text) {
  std::string word;
  for (const char c : text) word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const char* yes : {"true", "yes", "y", "on", "1"}) {
    if (word == yes) return "true";
  }
  for (const char* no : {"false", "no", "n", "off", "0"}) {
    if (word == no) return "false";
  }
  return "";
}

constexpr const char* kGroupForm =
    "{match: GLOB, weight_decay: NUMBER, learning_rate_scale: NUMBER}";

}  // namespace

std::string received(const std::string& path, const YAML::Node& node) {
  if (!node.IsScalar()) return cat(path, " is ", described(node));
  if (is_quoted(node)) return cat(path, " is the text \"", shown(node.Scalar()), "\"");
  return cat(path, " is ", shown(node.Scalar()));
}

std::string described(const YAML::Node& node) {
  if (node.IsNull()) return "null";
  if (node.IsMap()) return "a mapping";
  if (node.IsSequence()) return "a list";
  return shown(node.Scalar());
}

ValueReader::ValueReader(PlaceOf place_of, Entries& out)
    : place_of_(std::move(place_of)), out_(out) {}

std::optional<Value> ValueReader::read(const Key& key, const YAML::Node& node,
                                       const std::string& place) {
  if (key.type == Type::sources || key.type == Type::source_sets) return sources(key, node, place);
  if (key.type == Type::words) return words(key, node, place);
  if (key.type == Type::groups) return groups(key, node, place);
  if (key.type == Type::betas) return betas(key, node, place);
  if (!node.IsScalar()) {
    complain(problem(cat(key.path, " is ", described(node))).at(place).must("be a single value"));
    return std::nullopt;
  }
  switch (key.type) {
    case Type::text:
      return word(key, node, place);
    case Type::path:
      return path(key.path, node, place);
    case Type::integer:
      return integer<int64_t>(key.path, node, place);
    case Type::seed:
      return integer<uint64_t>(key.path, node, place);
    case Type::real:
      return real(key.path, node, place);
    default:
      return boolean(key, node, place);
  }
}

std::optional<std::string> ValueReader::key_name(const YAML::Node& key_node,
                                                 const std::string& mapping,
                                                 const std::string& prefix, SeenNames& seen) {
  const std::string place = place_of_(key_node.Mark());
  if (!key_node.IsScalar()) {
    complain(problem(cat(mapping, " has ", described(key_node), " as a key"))
                 .at(place)
                 .must("be the name of a key"));
    return std::nullopt;
  }
  const std::string& name = key_node.Scalar();
  const std::string full = shown(prefix.empty() ? name : cat(prefix, ".", name));
  const auto [earlier, is_new] = seen.emplace(name, place);
  if (is_new) return name;
  complain(problem(cat(full, " is given twice, first at ", earlier->second))
               .at(place)
               .remedy("Remove one of the two."));
  return std::nullopt;
}

template <typename Integer>
std::optional<Value> ValueReader::integer(const std::string& path, const YAML::Node& node,
                                          const std::string& place) {
  const std::string& text = node.Scalar();
  const ParsedInteger<Integer> parsed = parse_integer<Integer>(text);
  if (parsed.value && !is_quoted(node)) return *parsed.value;
  Problem p = problem(received(path, node)).at(place);
  const std::optional<double> as_real = parse_real(text);
  if (parsed.is_integer && !parsed.value) {
    p.must(cat("be an integer from ", std::numeric_limits<Integer>::min(), " to ",
               std::numeric_limits<Integer>::max()));
  } else {
    p.must("be an integer, in digits only");
    if (as_real && *as_real == std::floor(*as_real) && std::abs(*as_real) < 1e15) {
      p.remedy(cat("Write ", static_cast<int64_t>(*as_real),
                   is_quoted(node) ? ", without quotes." : "."));
    }
  }
  complain(std::move(p));
  return std::nullopt;
}

template std::optional<Value> ValueReader::integer<int64_t>(const std::string&, const YAML::Node&,
                                                            const std::string&);

std::optional<double> ValueReader::real(const std::string& path, const YAML::Node& node,
                                        const std::string& place) {
  const std::optional<double> value =
      node.IsScalar() ? parse_real(node.Scalar()) : std::optional<double>();
  if (value && !is_quoted(node)) return *value;
  Problem p = problem(received(path, node)).at(place);
  p.must("be a finite number, such as 0.001 or 1e-3");
  if (value) p.remedy("Quotes make it a text: leave them out.");
  complain(std::move(p));
  return std::nullopt;
}

std::optional<Value> ValueReader::boolean(const Key& key, const YAML::Node& node,
                                          const std::string& place) {
  if (!is_quoted(node) && node.Scalar() == "true") return true;
  if (!is_quoted(node) && node.Scalar() == "false") return false;
  Problem p = problem(received(key.path, node)).at(place).must("be true or false");
  const std::string meant = boolean_of_other_notations(node.Scalar());
  if (!meant.empty() && is_quoted(node)) {
    p.remedy(cat("Quotes make it a text: write ", meant, " without them."));
  } else if (!meant.empty()) {
    p.remedy(cat("Write ", meant, ": no other spelling is read."));
  }
  complain(std::move(p));
  return std::nullopt;
}

std::optional<std::string> ValueReader::text(const std::string& name, const YAML::Node& node,
                                             const std::string& place) {
  const std::string& value = node.Scalar();
  if (std::none_of(value.begin(), value.end(), is_control)) return value;
  complain(problem(received(name, node)).at(place).must("be without control characters"));
  return std::nullopt;
}

// A text, and one of those allowed where the key says which.
std::optional<Value> ValueReader::word(const Key& key, const YAML::Node& node,
                                       const std::string& place) {
  const std::optional<std::string> value = text(key.path, node, place);
  if (!value) return std::nullopt;
  const auto known = std::find(key.allowed.begin(), key.allowed.end(), *value);
  if (key.allowed.empty() || known != key.allowed.end()) return *value;
  complain(problem(cat(key.path, " is ", shown(yaml_text(*value))))
               .at(place)
               .must(cat("be ", key.allowed.size() > 1 ? "one of " : "", join(key.allowed)))
               .remedy(value->empty() && key.presence == Presence::absent
                           ? "Leave the key out to give no value."
                           : hint_for_word(key, *value)));
  return std::nullopt;
}

std::optional<std::string> ValueReader::path(const std::string& name, const YAML::Node& node,
                                             const std::string& place) {
  const std::optional<std::string> written = text(name, node, place);
  return written ? path_from_text(name, *written, place, out_.problems) : std::nullopt;
}

std::optional<Value> ValueReader::betas(const Key& key, const YAML::Node& node,
                                        const std::string& place) {
  if (!node.IsSequence() || node.size() != 2) {
    complain(problem(node.IsSequence() ? cat(key.path, " has ", node.size(), " elements")
                                       : received(key.path, node))
                 .at(place)
                 .must("be a list of two numbers, such as [0.9, 0.95]"));
    return std::nullopt;
  }
  std::vector<double> values;
  for (size_t i = 0; i < 2; ++i) {
    const auto value = real(cat(key.path, "[", i, "]"), node[i], place_of_(node[i].Mark()));
    if (value) values.push_back(*value);
  }
  if (values.size() != 2) return std::nullopt;
  return values;
}

std::optional<Value> ValueReader::words(const Key& key, const YAML::Node& node,
                                        const std::string& place) {
  if (node.IsScalar() && (key.any_alone || std::ranges::count(key.alone, node.Scalar()) > 0))
    return std::vector<std::string>{node.Scalar()};
  if (!node.IsSequence()) {
    Problem p = problem(received(key.path, node)).at(place);
    p.must(key.any_alone       ? std::string("be a text or a list of texts")
           : key.alone.empty() ? std::string("be a list of texts")
                               : cat("be ", join(key.alone), " or a list of texts"));
    if (node.IsScalar()) p.remedy(cat("Write [\"", node.Scalar(), "\"]."));
    complain(std::move(p));
    return std::nullopt;
  }
  std::vector<std::string> list;
  for (size_t i = 0; i < node.size(); ++i) {
    if (node[i].IsScalar()) {
      list.push_back(node[i].Scalar());
      continue;
    }
    complain(problem(cat(key.path, "[", i, "] is ", described(node[i])))
                 .at(place_of_(node[i].Mark()))
                 .must("be a text"));
  }
  if (list.size() != node.size()) return std::nullopt;
  return list;
}

std::optional<Value> ValueReader::groups(const Key& key, const YAML::Node& node,
                                         const std::string& place) {
  if (!node.IsSequence()) {
    Problem p = problem(received(key.path, node)).at(place);
    p.must(cat("be a list of ", kGroupForm));
    if (node.IsMap()) p.remedy("Put - before its first key, or [ ] around it.");
    complain(std::move(p));
    return std::nullopt;
  }
  std::vector<ParameterGroup> list;
  for (size_t i = 0; i < node.size(); ++i) {
    std::optional<ParameterGroup> entry =
        group(cat(key.path, "[", i, "]"), node[i], place_of_(node[i].Mark()));
    if (entry) list.push_back(std::move(*entry));
  }
  if (list.size() != node.size()) return std::nullopt;
  return list;
}

std::optional<ParameterGroup> ValueReader::group(const std::string& name, const YAML::Node& node,
                                                 const std::string& place) {
  if (!node.IsMap()) {
    Problem p = problem(cat(name, " is ", described(node))).at(place).must(cat("be ", kGroupForm));
    if (node.IsScalar()) p.remedy(cat("Write {match: \"", node.Scalar(), "\", ...}."));
    complain(std::move(p));
    return std::nullopt;
  }
  const std::optional<std::vector<Member>> members =
      members_of(name, node, {"match", "weight_decay", "learning_rate_scale"});
  if (!members) return std::nullopt;
  ParameterGroup result;
  bool usable = true, has_match = false;
  for (const Member& member : *members) {
    const std::string path = cat(name, ".", member.name);
    out_.given.emplace_back(path, member.place);
    if (member.name == "match") {
      has_match = true;
      if (member.value.IsScalar()) {
        const std::optional<std::string> match = text(path, member.value, member.place);
        usable = usable && match;
        result.match = match.value_or("");
        continue;
      }
      complain(problem(cat(path, " is ", described(member.value)))
                   .at(member.place)
                   .must("be a glob over tensor names")
                   .remedy("For example match: \"*.bias\"."));
      usable = false;
      continue;
    }
    const std::optional<double> value = real(path, member.value, member.place);
    usable = usable && value;
    if (member.name == "weight_decay") {
      result.weight_decay = value;
    } else {
      result.learning_rate_scale = value.value_or(1.0);
    }
  }
  if (!has_match) {
    complain(problem(cat(name, " has no match"))
                 .at(place)
                 .must("name the tensors it is for")
                 .remedy("For example match: \"*.bias\"."));
  }
  return usable && has_match ? std::optional(result) : std::nullopt;
}

std::optional<std::vector<ValueReader::Member>> ValueReader::members_of(
    const std::string& name, const YAML::Node& node, const std::vector<std::string>& known) {
  SeenNames seen;
  std::vector<Member> members;
  bool complained = false;
  for (const auto& item : node) {
    const YAML::Node &key_node = item.first, &value = item.second;
    const std::optional<std::string> key = key_name(key_node, name, name, seen);
    if (key && std::find(known.begin(), known.end(), *key) != known.end()) {
      members.push_back({.name = *key, .value = value, .place = place_of_(value.Mark())});
      continue;
    }
    complained = true;
    if (!key) continue;
    const std::string meant = nearest_word(*key, known);
    const std::string hint = hint_for_member(name, *key);
    complain(problem(cat(shown(cat(name, ".", *key)), " is no known key"))
                 .at(place_of_(key_node.Mark()))
                 .remedy(!hint.empty()    ? hint
                         : !meant.empty() ? cat("Did you mean ", name, ".", meant, "?")
                                          : cat(name, " has the key", known.size() > 1 ? "s " : " ",
                                                join(known), ".")));
  }
  return complained ? std::nullopt : std::optional(std::move(members));
}

}  // namespace tptrain::config
