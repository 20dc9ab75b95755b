#include "config/yaml_entries.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "base/text.h"
#include "config/yaml_document.h"

namespace tptrain::config {
namespace {

// What was received, for a message.
std::string described(const YAML::Node& node) {
  if (node.IsNull()) return "null";
  if (node.IsMap()) return "a mapping";
  if (node.IsSequence()) return "a list";
  return node.Scalar();
}

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

class Reader {
 public:
  Reader(PlaceOf place_of, Entries& out) : place_of_(std::move(place_of)), out_(out) {}

  /// The value of a section or key at `path`.
  void read(const std::string& path, const YAML::Node& node, const std::string& place) {
    if (const Key* key = find_key(path)) return read_value(*key, node, place);
    read_section(path, node, place);
  }

  void read_section(const std::string& path, const YAML::Node& node, const std::string& place) {
    if (!path.empty()) out_.given.emplace_back(path, place);
    const std::string name = path.empty() ? "the file" : path;
    if (!node.IsMap()) {
      out_.refused.insert(path);
      complain(problem(cat(name, " is ", described(node)))
                   .at(place)
                   .must(cat("be a mapping of the keys ", join(names_in(path))))
                   .remedy(node.IsNull() && !path.empty()
                               ? "Give keys below it, or leave the section out."
                               : "Write each key on its own line, as `key: value`."));
      return;
    }
    std::vector<std::pair<std::string, std::string>> seen;  // name and place
    for (const auto& item : node) {
      const YAML::Node &key_node = item.first, &value = item.second;
      const std::optional<std::string> key = key_name(key_node, path, seen);
      if (!key) continue;
      const std::string child = path.empty() ? *key : cat(path, ".", *key);
      if (!find_key(child) && (child.empty() || !find_section(child))) {
        complain_unknown(child, path, *key, place_of_(key_node.Mark()));
        continue;
      }
      read(child, value, place_of_(value.Mark()));
    }
  }

  /// Problem of a name that is neither key nor section: `name` in section `parent`.
  void complain_unknown(const std::string& path, const std::string& parent, const std::string& name,
                        const std::string& place) {
    Problem p = problem(cat(path, " is no known key")).at(place);
    const std::vector<std::string> siblings = names_in(parent);
    // The name can itself have parts where --set names a section that does not exist:
    // "paralel.tp_size".
    const size_t dot = name.find('.');
    std::string meant = nearest_word(name.substr(0, dot), siblings);
    if (!meant.empty()) {
      if (!parent.empty()) meant = cat(parent, ".", meant);
      if (dot != std::string::npos && find_key(meant + name.substr(dot))) meant += name.substr(dot);
    } else {  // perhaps the right name in the wrong section
      std::vector<std::string> namesakes;
      for (const Key& key : keys()) {
        if (key.name() == name.substr(name.rfind('.') + 1)) namesakes.push_back(key.path);
      }
      meant = join(namesakes, " or ");
    }
    if (!meant.empty()) {
      p.remedy(cat("Did you mean ", meant, "?"));
    } else {
      p.remedy(
          cat(parent.empty() ? "The top level" : parent, " has the keys ", join(siblings), "."));
    }
    complain(std::move(p));
  }

 private:
  void complain(Problem p) { out_.problems.push_back(std::move(p)); }

  // The name of a mapping's key, if it is a text and not yet `seen`.
  std::optional<std::string> key_name(const YAML::Node& key_node, const std::string& path,
                                      std::vector<std::pair<std::string, std::string>>& seen) {
    const std::string place = place_of_(key_node.Mark());
    if (!key_node.IsScalar()) {
      complain(
          problem(cat(path.empty() ? "the file" : path, " has ", described(key_node), " as a key"))
              .at(place)
              .must("be the name of a key"));
      return std::nullopt;
    }
    const std::string& name = key_node.Scalar();
    const std::string full = path.empty() ? name : cat(path, ".", name);
    for (const auto& [earlier, earlier_place] : seen) {
      if (earlier != name) continue;
      complain(problem(cat(full, " is given twice, first at ", earlier_place))
                   .at(place)
                   .remedy("Remove one of the two."));
      return std::nullopt;
    }
    seen.emplace_back(name, place);
    return name;
  }

  void read_value(const Key& key, const YAML::Node& node, const std::string& place) {
    out_.given.emplace_back(key.path, place);
    out_.refused.insert(key.path);  // until it proves usable
    if (node.IsNull()) {
      complain(problem(cat(key.path, " is null"))
                   .at(place)
                   .must("have a value")
                   .remedy(key.presence == Presence::required
                               ? cat("Give one, as in `", key.name(), ": ", key.hint, "`.")
                               : "Give one, or leave the key out."));
      return;
    }
    if (std::optional<Value> value = typed_value(key, node, place)) {
      out_.entries.push_back({&key, std::move(*value), place});
      out_.refused.erase(key.path);
    }
  }

  std::optional<Value> typed_value(const Key& key, const YAML::Node& node,
                                   const std::string& place) {
    if (key.type == Type::sources) return sources(key, node, place);
    if (key.type == Type::betas) return betas(key, node, place);
    if (!node.IsScalar()) {
      complain(problem(cat(key.path, " is ", described(node))).at(place).must("be a single value"));
      return std::nullopt;
    }
    switch (key.type) {
      case Type::text:
        return node.Scalar();
      case Type::integer:
        return integer<int64_t>(key, node, place);
      case Type::seed:
        return integer<uint64_t>(key, node, place);
      case Type::real:
        return real(key.path, node, place);
      default:
        return boolean(key, node, place);
    }
  }

  // "parallel.tp_size is "2"": a quoted scalar shows its quotes, since they are what is wrong with
  // it.
  static std::string received(const std::string& path, const YAML::Node& node) {
    if (!node.IsScalar()) return cat(path, " is ", described(node));
    if (is_quoted(node)) return cat(path, " is the text \"", node.Scalar(), "\"");
    return cat(path, " is ", node.Scalar());
  }

  template <typename Integer>
  std::optional<Value> integer(const Key& key, const YAML::Node& node, const std::string& place) {
    const std::string& text = node.Scalar();
    const ParsedInteger<Integer> parsed = parse_integer<Integer>(text);
    if (parsed.value && !is_quoted(node)) return *parsed.value;
    Problem p = problem(received(key.path, node)).at(place);
    const std::optional<double> as_real = parse_real(text);
    if (parsed.is_integer && !parsed.value) {
      p.must(cat("be an integer from ", std::numeric_limits<Integer>::min(), " to ",
                 std::numeric_limits<Integer>::max()));
    } else {
      p.must("be an integer, in digits only");
      if (as_real && *as_real == std::floor(*as_real) && std::abs(*as_real) < 1e15) {
        p.remedy(cat("Write ", static_cast<int64_t>(*as_real), "."));
      }
    }
    complain(std::move(p));
    return std::nullopt;
  }

  std::optional<Value> real(const std::string& path, const YAML::Node& node,
                            const std::string& place) {
    const std::optional<double> value =
        node.IsScalar() ? parse_real(node.Scalar()) : std::optional<double>();
    if (value && !is_quoted(node)) return *value;
    Problem p = problem(received(path, node)).at(place);
    p.must("be a finite number, such as 0.001 or 1e-3");
    if (value) p.remedy("Leave out the quotes.");
    complain(std::move(p));
    return std::nullopt;
  }

  std::optional<Value> boolean(const Key& key, const YAML::Node& node, const std::string& place) {
    if (!is_quoted(node) && node.Scalar() == "true") return true;
    if (!is_quoted(node) && node.Scalar() == "false") return false;
    complain(problem(received(key.path, node)).at(place).must("be true or false"));
    return std::nullopt;
  }

  std::optional<Value> betas(const Key& key, const YAML::Node& node, const std::string& place) {
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
      if (value) values.push_back(std::get<double>(*value));
    }
    if (values.size() != 2) return std::nullopt;
    return values;
  }

  std::optional<Value> sources(const Key& key, const YAML::Node& node, const std::string& place) {
    if (!node.IsSequence()) {
      Problem p = problem(received(key.path, node)).at(place);
      p.must("be a list of globs");
      if (node.IsScalar()) p.remedy(cat("Write [\"", node.Scalar(), "\"]."));
      complain(std::move(p));
      return std::nullopt;
    }
    std::vector<DataSource> list;
    for (size_t i = 0; i < node.size(); ++i) {
      const std::optional<std::string> path =
          source_path(cat(key.path, "[", i, "]"), node[i], place_of_(node[i].Mark()));
      if (path) list.push_back({.path = *path});
    }
    if (list.size() != node.size()) return std::nullopt;
    return list;
  }

  // One element of data.train: "GLOB" or {path: GLOB}.
  std::optional<std::string> source_path(const std::string& name, const YAML::Node& node,
                                         const std::string& place) {
    if (node.IsScalar()) return node.Scalar();
    if (!node.IsMap()) {
      complain(problem(cat(name, " is ", described(node)))
                   .at(place)
                   .must("be a glob, as a plain text or as {path: GLOB}"));
      return std::nullopt;
    }
    std::vector<std::pair<std::string, std::string>> seen;
    std::optional<std::string> path;
    bool complained = false;
    for (const auto& item : node) {
      const YAML::Node &key_node = item.first, &value = item.second;
      const std::optional<std::string> key = key_name(key_node, name, seen);
      if (!key) {
        complained = true;
      } else if (*key != "path") {
        complain(problem(cat(name, ".", *key, " is no known key"))
                     .at(place_of_(key_node.Mark()))
                     .remedy(cat(name, " has the key path.")));
        complained = true;
      } else if (!value.IsScalar()) {
        complain(problem(cat(name, ".path is ", described(value)))
                     .at(place_of_(value.Mark()))
                     .must("be a glob"));
        complained = true;
      } else {
        path = value.Scalar();
      }
    }
    if (!path && !complained) {
      complain(problem(cat(name, " has no path")).at(place).must("be {path: GLOB}"));
    }
    return complained ? std::nullopt : path;
  }

  PlaceOf place_of_;
  Entries& out_;
};

}  // namespace

Entries read_file_text(const std::string& yaml_text, const std::string& name) {
  const PlaceOf place_of = [&name](const YAML::Mark& mark) {
    return mark.is_null() ? name : cat(name, ":", mark.line + 1, ":", mark.column + 1);
  };
  Entries out;
  const std::optional<YAML::Node> root = load_document(
      yaml_text, place_of, "Indent with spaces, and quote texts that hold : # [ ] { } * or &.",
      out.problems);
  if (!root) {
    out.refused.insert("");
    return out;
  }
  if (root->IsNull()) {
    out.empty_text = true;
    return out;
  }
  Reader(place_of, out).read_section("", *root, place_of(root->Mark()));
  return out;
}

Entries read_override(const std::string& text) {
  const std::string place = cat("--set ", text);
  const PlaceOf place_of = [&place](const YAML::Mark&) { return place; };
  Entries out;
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    out.problems.push_back(problem("this names no key and value")
                               .at(place)
                               .must("have the form section.key=value")
                               .remedy("For example --set train.max_steps=100."));
    return out;
  }
  const std::string path = text.substr(0, equals);
  Reader reader(place_of, out);
  for (const Key& key : keys()) {
    if (path == key.path || !is_at_or_below(path, key.path)) continue;
    out.problems.push_back(
        problem(cat(path, " is no known key"))
            .at(place)
            .remedy(cat(key.path, " is one value: set it as a whole, --set ", key.path, "=...")));
    return out;
  }
  if (!find_key(path) && !find_section(path)) {
    // The deepest part of the path that is a section; the name after it is the unknown one.
    std::string parent = path;
    while (!parent.empty() && !find_section(parent)) {
      const size_t dot = parent.rfind('.');
      parent = dot == std::string::npos ? "" : parent.substr(0, dot);
    }
    reader.complain_unknown(path, parent, path.substr(parent.empty() ? 0 : parent.size() + 1),
                            place);
    return out;
  }
  const std::optional<YAML::Node> value = load_document(
      text.substr(equals + 1), place_of,
      cat("The value is read as YAML: put quotes within quotes around texts that hold : # [ ] "
          "{ } * or &, as in --set '",
          path, "=\"...\"'."),
      out.problems);
  if (value) {
    reader.read(path, *value, place);
  } else {
    out.given.emplace_back(path, place);
    out.refused.insert(path);
  }
  return out;
}

}  // namespace tptrain::config
