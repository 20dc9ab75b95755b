// The JSON Schema of the run file, from the list of keys.
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

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

// What a value is in JSON, as overloads: std::visit takes the one that fits.
template <typename Scalar>
Json to_json(const Scalar& value) {
  return value;
}
Json to_json(const std::vector<DataSource>& sources) {
  Json list = Json::array();
  for (const DataSource& source : sources) list.push_back(source.path);  // of defaults: plain
  return list;
}
Json to_json(const std::vector<ParameterGroup>& groups) {
  Json list = Json::array();
  for (const ParameterGroup& group : groups) {
    Json entry = {{"match", group.match}};
    if (group.weight_decay) entry["weight_decay"] = *group.weight_decay;
    entry["learning_rate_scale"] = group.learning_rate_scale;
    list.push_back(std::move(entry));
  }
  return list;
}

void add_limits(const Limits& limits, Json& schema) {
  if (limits.at_least) schema["minimum"] = *limits.at_least;
  if (limits.above) schema["exclusiveMinimum"] = *limits.above;
  if (limits.at_most) schema["maximum"] = *limits.at_most;
  if (limits.below) schema["exclusiveMaximum"] = *limits.below;
}

Json strict_object(Json properties, const std::string& required) {
  return {{"type", "object"},
          {"properties", std::move(properties)},
          {"required", Json::array({required})},
          {"additionalProperties", false}};
}

Json source_schema(const Json& glob) {
  Json columns = {{"type", "object"}, {"additionalProperties", false}};
  for (const char* name : kColumnNames) columns["properties"][name] = glob;
  Json roles = {{"type", "object"}, {"additionalProperties", false}};
  for (const char* name : kRoleNames)
    roles["properties"][name]["anyOf"] = {glob, {{"type", "array"}, {"items", glob}}};
  return strict_object({{"path", glob},
                        {"name", {{"type", "string"}, {"minLength", 1}}},
                        {"weight", {{"type", "number"}, {"exclusiveMinimum", 0}}},
                        {"format", {{"enum", find_key("data.format")->allowed}}},
                        {"subset", {{"type", {"string", "integer"}}}},
                        {"repeat", {{"type", "integer"}, {"minimum", 1}}},
                        {"columns", columns},
                        {"roles", roles}},
                       "path");
}

// What stands in the list of a key.
void add_items(const Key& key, Json& schema) {
  const Json glob = {{"type", "string"}, {"minLength", 1}};
  if (key.type == Type::betas) {
    schema["items"] = {{"type", "number"}, {"minimum", 0}, {"exclusiveMaximum", 1}};
    schema["minItems"] = 2;
    schema["maxItems"] = 2;
  } else if (key.type == Type::words) {
    schema["items"] = glob;
    if (!key.allowed.empty()) schema["items"] = {{"enum", key.allowed}};
  } else if (key.type == Type::sources) {
    schema["items"]["oneOf"] = Json::array({glob, source_schema(glob)});
    if (key.presence == Presence::required) schema["minItems"] = 1;
  } else if (key.type == Type::source_sets) {
    schema["items"]["oneOf"] = Json::array({glob, source_schema(glob)});
    schema["additionalProperties"] = {
        {"type", "array"}, {"items", schema["items"]}, {"minItems", 1}};
  } else {
    const Json not_negative = {{"type", "number"}, {"minimum", 0}};
    Json scale = not_negative;
    scale["default"] = ParameterGroup().learning_rate_scale;
    schema["items"] = strict_object(
        {{"match", glob}, {"weight_decay", not_negative}, {"learning_rate_scale", scale}}, "match");
  }
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
    case Type::path:
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
    case Type::source_sets:
      schema["type"] = {"array", "object"};
      add_items(key, schema);
      break;
    case Type::betas:
    case Type::words:
    case Type::sources:
    case Type::groups:
      schema["type"] = "array";
      add_items(key, schema);
      if (key.any_alone || !key.alone.empty()) {
        const Json one = key.any_alone ? schema["items"] : Json{{"enum", key.alone}};
        schema.erase("type");
        schema["anyOf"] = {one, {{"type", "array"}, {"items", schema["items"]}}};
        schema.erase("items");
      }
      break;
  }
  add_limits(key.limits, schema);
  if (const auto value = default_value(key)) {
    schema["default"] = std::visit([](const auto& v) { return to_json(v); }, *value);
  }
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

}  // namespace

std::string json_schema() {
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                 {"title", "tptrain run file"}};
  schema.update(section_schema(*find_section("")));
  schema.erase("description");  // the title says it
  return schema.dump(2) + "\n";
}

}  // namespace tptrain::config
