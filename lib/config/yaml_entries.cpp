#include "config/yaml_entries.h"

#include <yaml-cpp/yaml.h>

#include <optional>

#include "base/text.h"
#include "config/name_hints.h"
#include "config/yaml_document.h"
#include "config/yaml_values.h"

namespace tptrain::config {
namespace {

/// What was given, where it is one word; else "".
std::string word_of(const YAML::Node& node) {
  return node.IsScalar() && node.Scalar().size() <= 32 ? node.Scalar() : "";
}

// How what was given in place of a section is meant, as far as it can be.
std::string section_remedy(const std::string& path, const YAML::Node& node) {
  const std::string hint = hint_for_section(path, word_of(node));
  if (!hint.empty()) return hint;
  for (const char* name : {"type", "path"}) {
    const std::string key = cat(path, ".", name);
    if (find_key(key)) return cat("Write `", path, ": {", name, ": ...}`.");
  }
  return "Write each key on its own line, as `key: value`.";
}

class Reader {
 public:
  Reader(const PlaceOf& place_of, Entries& out)
      : place_of_(place_of), out_(out), values_(place_of, out) {}

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
                               : section_remedy(path, node)));
      return;
    }
    SeenNames seen;
    for (const auto& item : node) {
      const YAML::Node &key_node = item.first, &value = item.second;
      const std::optional<std::string> key =
          values_.key_name(key_node, path.empty() ? "the file" : path, path, seen);
      if (!key) continue;
      const std::string child = path.empty() ? *key : cat(path, ".", *key);
      if (!find_key(child) && (child.empty() || !find_section(child))) {
        complain_unknown(child, path, place_of_(key_node.Mark()), word_of(value));
        // Of a section whose name is misspelt, that is all there is to say.
        if (*key != "<<" && nearest_word(*key, names_in(path)).empty()) {
          tell_of_names_below(child, value);
        }
        continue;
      }
      read(child, value, place_of_(value.Mark()));
    }
  }

  /// Problem of `path`, which is neither key nor section, in the section `parent`, and was given
  /// that word or "".
  void complain_unknown(const std::string& path, const std::string& parent,
                        const std::string& place, const std::string& word) {
    if (out_.is_full()) return out_.complain({});  // counted; a hint would only take its time
    if (path == "<<" || path.ends_with(".<<")) {
      return complain(problem(cat(path, " is no known key: the merge of YAML 1.1 is not read"))
                          .at(place)
                          .remedy("Write the keys out, or take a whole section from elsewhere with "
                                  "an alias, as in `eval: *name`."));
    }
    Problem p = problem(cat(shown(path), " is no known key")).at(place);
    const std::string hint = hint_for_name(path, word);
    complain(p.remedy(!hint.empty() ? hint
                                    : cat(parent.empty() ? "The top level" : parent,
                                          " has the keys ", join(names_in(parent)), ".")));
  }

 private:
  void complain(Problem p) { out_.complain(std::move(p)); }

  // Of a mapping that is no section here: what its names are called. Bounded, since aliases make
  // trees of any size out of a few lines.
  void tell_of_names_below(const std::string& path, const YAML::Node& node) {
    if (!node.IsMap()) return;
    for (const auto& item : node) {
      if (out_.is_full() || ++foreign_names_seen_ > kMostForeignNames) return;
      const YAML::Node &key_node = item.first, &value = item.second;
      if (!key_node.IsScalar()) continue;
      const std::string child = cat(path, ".", key_node.Scalar());
      const std::string hint = exact_hint_for_name(child, word_of(value));
      if (!hint.empty()) {
        complain(problem(cat(shown(child), " is no known key"))
                     .at(place_of_(key_node.Mark()))
                     .remedy(hint));
      }
      tell_of_names_below(child, value);
    }
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
                           : key.type == Type::path
                               ? "Give one, or leave the key out; ~ alone is null, ~/ the home "
                                 "directory."
                               : "Give one, or leave the key out."));
      return;
    }
    if (std::optional<Value> value = values_.read(key, node, place)) {
      out_.entries.push_back({&key, std::move(*value), place});
      out_.refused.erase(key.path);
    }
  }

  static constexpr int kMostForeignNames = 1000;

  PlaceOf place_of_;
  Entries& out_;
  ValueReader values_;
  int foreign_names_seen_ = 0;
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
    // The deepest part of the path that is a section.
    std::string parent = path;
    while (!parent.empty() && !find_section(parent)) {
      const size_t dot = parent.rfind('.');
      parent = dot == std::string::npos ? "" : parent.substr(0, dot);
    }
    reader.complain_unknown(path, parent, place, text.substr(equals + 1));
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
