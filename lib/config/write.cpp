// What is written from the list of keys: resolved_config.yaml, the JSON Schema and the markdown
// reference.
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/text.h"
#include "config/keys.h"
#include "config/parse.h"

namespace tptrain::config {
namespace {

using Json = nlohmann::ordered_json;

bool is_alternative(const std::string& path) {
  for (const Alternatives& group : alternatives()) {
    if (std::find(group.members.begin(), group.members.end(), path) != group.members.end()) {
      return true;
    }
  }
  return false;
}

Json to_json_value(const Key& key, const Value& value) {
  if (const auto* sources = std::get_if<std::vector<DataSource>>(&value)) {
    Json list = Json::array();
    for (const DataSource& source : *sources) list.push_back(source.path);
    return list;
  }
  return std::visit(
      [](const auto& v) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::vector<DataSource>>) {
          return nullptr;  // handled above
        } else {
          return v;
        }
      },
      value);
}

void add_limits(const Limits& limits, Json& schema) {
  if (limits.at_least) schema["minimum"] = *limits.at_least;
  if (limits.above) schema["exclusiveMinimum"] = *limits.above;
  if (limits.at_most) schema["maximum"] = *limits.at_most;
}

Json key_schema(const Key& key) {
  Json schema;
  schema["description"] =
      key.hint.empty() || key.presence == Presence::required
          ? key.doc
          : cat(key.doc,
                key.presence == Presence::absent ? " Without it: " : " The default stands for: ",
                key.hint, ".");
  switch (key.type) {
    case Type::text:
      schema["type"] = "string";
      if (key.allowed.empty()) {
        schema["minLength"] = 1;
      } else {
        schema["enum"] = key.allowed;
      }
      break;
    case Type::integer:
      schema["type"] = "integer";
      break;
    case Type::seed:
      schema["type"] = "integer";
      schema["minimum"] = 0;
      schema["maximum"] = std::numeric_limits<uint64_t>::max();
      break;
    case Type::real:
      schema["type"] = "number";
      break;
    case Type::boolean:
      schema["type"] = "boolean";
      break;
    case Type::betas:
      schema["type"] = "array";
      schema["items"] = {{"type", "number"}, {"minimum", 0}, {"exclusiveMaximum", 1}};
      schema["minItems"] = 2;
      schema["maxItems"] = 2;
      break;
    case Type::sources: {
      const Json glob = {{"type", "string"}, {"minLength", 1}};
      const Json object = {{"type", "object"},
                           {"properties", {{"path", glob}}},
                           {"required", {"path"}},
                           {"additionalProperties", false}};
      schema["type"] = "array";
      schema["items"]["oneOf"] = Json::array({glob, object});
      if (key.presence == Presence::required) schema["minItems"] = 1;
      break;
    }
  }
  add_limits(key.limits, schema);
  if (const auto value = default_value(key)) schema["default"] = to_json_value(key, *value);
  return schema;
}

// A section must be given where something in it must be.
bool must_be_given(const std::string& path) {
  if (is_alternative(path)) return false;
  if (const Key* key = find_key(path)) return key->presence == Presence::required;
  for (const Alternatives& group : alternatives()) {
    if (group.one_is_required && is_at_or_below(group.members[0], path)) return true;
  }
  for (const std::string& name : names_in(path)) {
    if (must_be_given(cat(path, ".", name))) return true;
  }
  return false;
}

Json section_schema(const Section& section) {
  Json schema;
  schema["description"] = section.doc;
  schema["type"] = "object";
  Json required = Json::array();
  for (const std::string& name : names_in(section.path)) {
    const std::string path = section.path.empty() ? name : cat(section.path, ".", name);
    const Key* key = find_key(path);
    schema["properties"][name] =
        key != nullptr ? key_schema(*key) : section_schema(*find_section(path));
    if (must_be_given(path)) required.push_back(name);
  }
  if (!required.empty()) schema["required"] = required;
  for (const Alternatives& group : alternatives()) {
    std::vector<std::string> names;
    for (const std::string& member : group.members) {
      if (member.substr(0, member.rfind('.')) == section.path) {
        names.push_back(member.substr(section.path.size() + 1));
      }
    }
    if (names.empty()) continue;
    if (!group.one_is_required) {
      schema["not"] = {{"required", names}};
      continue;
    }
    for (const std::string& name : names) {
      schema["oneOf"].push_back({{"required", Json::array({name})}});
    }
  }
  schema["additionalProperties"] = false;
  return schema;
}

std::string type_name(Type type) {
  switch (type) {
    case Type::text:
      return "text";
    case Type::integer:
    case Type::seed:
      return "integer";
    case Type::real:
      return "number";
    case Type::boolean:
      return "true, false";
    case Type::betas:
      return "two numbers";
    case Type::sources:
      return "list of globs";
  }
  return "";
}

std::string values_cell(const Key& key) {
  if (!key.allowed.empty()) {
    std::vector<std::string> words;
    for (const std::string& word : key.allowed) words.push_back(cat("`", word, "`"));
    return join(words);
  }
  std::string cell = type_name(key.type);
  const Limits& limits = key.limits;
  if (limits.at_least && limits.at_most && *limits.at_most == *limits.at_least + 1) {
    return cat(*limits.at_least, ", ", *limits.at_most);
  }
  if (limits.at_least) cell += cat(", at least ", *limits.at_least);
  if (limits.above) cell += cat(", above ", *limits.above);
  if (key.type == Type::seed) cell += ", at least 0";
  if (key.type == Type::betas) cell += " from 0 to below 1";
  return cell;
}

std::string default_cell(const Key& key) {
  if (key.presence == Presence::required) return "**required**";
  if (key.presence == Presence::absent) return key.hint.empty() ? "none" : key.hint;
  const std::string value = cat("`", yaml_text(*default_value(key)), "`");
  return key.hint.empty() ? value : cat(value, ": ", key.hint);
}

void write_alternatives(const std::string& section, std::ostream& out) {
  for (const Alternatives& group : alternatives()) {
    if (group.members[0].substr(0, group.members[0].rfind('.')) != section) continue;
    std::vector<std::string> names;
    for (const std::string& member : group.members) {
      names.push_back(cat("`", member.substr(section.size() + 1), "`"));
    }
    out << (group.one_is_required ? "Exactly one of " : "At most one of ") << join(names, " and ")
        << ".\n\n";
  }
}

constexpr const char* kReferenceHead =
    R"(<!-- Generated: tptrain schema --markdown > docs/configuration.md. Edit lib/config/keys.cpp instead. -->
# The run file

A run is described by one YAML file: `tptrain --config run.yaml`. Every key that exists stands below, under its section; any other
key is an error, as are a key given twice, a value of another type (`3.0` or `"3"` for an integer, `yes` for `true`) and `null`. All
errors of a file are reported at once, each with `file:line:column`. `tptrain schema` prints the JSON Schema, for editors.

```yaml
run_dir: runs/quickstart
model:
  architecture: {hidden_size: 256, intermediate_size: 688, num_hidden_layers: 4, num_attention_heads: 8}
parallel: {tp_size: 2, dp_size: 2}
data:
  train: ["corpus/*.txt"]
train: {max_steps: 100, global_batch_size: 8}
```

## Changing one value: `--set`

`--set section.key=value` overrides one value of the file; it may be repeated, and of two for the same key the later counts. The value
is read as YAML: `--set train.max_steps=200`, `--set 'data.train=[a.txt, b.txt]'`, `--set model.architecture.hidden_size=64`. A section
given so, as in `--set 'parallel={tp_size: 2}'`, changes the keys it names and no other.

Where a key excludes another (`global_batch_size` and `grad_accum_steps`; `model.path` and `model.architecture`), an override of the one
drops the other from the file: `--set train.grad_accum_steps=2` takes the place of the file's `global_batch_size`. Overriding both
is an error.

The values that a run uses, defaults included, are written to `run_dir/resolved_config.yaml`, which is a run file again.
)";

}  // namespace

std::string to_yaml(const RunConfig& config) {
  std::ostringstream out;
  std::string open;  // the section whose keys are being written
  for (const Key& key : keys()) {
    const std::optional<Value> value = key.get(config);
    if (!value) continue;
    // Sections come one after another, a nested one last in its parent: one header a change is
    // enough.
    const std::string section = key.section();
    std::string indent;
    for (size_t at = 0; !section.empty() && at != std::string::npos;) {
      const size_t dot = section.find('.', at + 1);
      const std::string part = section.substr(0, dot);
      if (!is_at_or_below(open, part)) {
        out << indent << find_section(part)->path.substr(part.rfind('.') + 1) << ":\n";
      }
      indent += "  ";
      at = dot;
    }
    open = section;
    out << indent << key.name() << ": " << yaml_text(*value) << "\n";
  }
  return std::move(out).str();
}

std::string json_schema() {
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", "tptrain run file"}};
  schema.update(section_schema(*find_section("")));
  schema.erase("description");  // the title says it
  return schema.dump(2) + "\n";
}

std::string markdown_reference() {
  std::ostringstream out;
  out << kReferenceHead;
  for (const Section& section : sections()) {
    out << "\n## " << (section.path.empty() ? "Top level" : cat("`", section.path, "`")) << "\n\n";
    out << section.doc << "\n\n";
    write_alternatives(section.path, out);
    out << "| key | value | default | meaning |\n|---|---|---|---|\n";
    for (const Key& key : keys()) {
      if (key.section() != section.path) continue;
      out << "| `" << key.name() << "` | " << values_cell(key) << " | " << default_cell(key)
          << " | " << key.doc << " |\n";
    }
  }
  return std::move(out).str();
}

}  // namespace tptrain::config
