// data.train and data.eval: lists of globs, each with what it is to the training; and sets of such
// lists by their names.
#include <algorithm>

#include "base/text.h"
#include "config/foreign_names.h"
#include "config/keys.h"
#include "config/yaml_values.h"

namespace tptrain::config {

std::optional<Value> ValueReader::sources(const Key& key, const YAML::Node& node,
                                          const std::string& place) {
  if (node.IsMap() && key.type == Type::source_sets) return source_sets(key, node);
  return source_list(key.path, node, place);
}

std::optional<Value> ValueReader::source_sets(const Key& key, const YAML::Node& node) {
  SeenNames seen;
  std::vector<DataSource> all;
  bool usable = true;
  for (const auto& item : node) {
    const YAML::Node &key_node = item.first, &value = item.second;
    const std::optional<std::string> name = key_name(key_node, key.path, key.path, seen);
    if (!name) {
      usable = false;
      continue;
    }
    const std::string set = cat(key.path, ".", *name);
    const std::string place = place_of_(value.Mark());
    out_.given.emplace_back(set, place);
    std::optional<std::vector<DataSource>> list = source_list(set, value, place);
    if (list && list->empty()) {
      complain(problem(cat(set, " is []")).at(place).must("name at least one file or glob"));
    }
    if (!list || list->empty()) {
      usable = false;
      continue;
    }
    for (DataSource& source : *list) {
      source.set = *name;
      all.push_back(std::move(source));
    }
  }
  if (!usable) return std::nullopt;
  return all;
}

std::optional<std::vector<DataSource>> ValueReader::source_list(const std::string& name,
                                                                const YAML::Node& node,
                                                                const std::string& place) {
  if (!node.IsSequence()) {
    Problem p = problem(received(name, node)).at(place);
    p.must("be a list of globs");
    if (node.IsScalar()) p.remedy(cat("Write [\"", node.Scalar(), "\"]."));
    complain(std::move(p));
    return std::nullopt;
  }
  std::vector<DataSource> list;
  for (size_t i = 0; i < node.size(); ++i) {
    std::optional<DataSource> entry =
        source(cat(name, "[", i, "]"), node[i], place_of_(node[i].Mark()));
    if (entry) list.push_back(std::move(*entry));
  }
  if (list.size() != node.size()) return std::nullopt;
  return list;
}

// "GLOB" or {path: GLOB, ...}.
std::optional<DataSource> ValueReader::source(const std::string& name, const YAML::Node& node,
                                              const std::string& place) {
  DataSource result;
  if (node.IsScalar()) {
    const std::optional<std::string> glob = path(name, node, place);
    result.path = glob.value_or("");
    return glob ? std::optional(result) : std::nullopt;
  }
  if (!node.IsMap()) {
    complain(problem(cat(name, " is ", described(node)))
                 .at(place)
                 .must("be a glob, as a plain text or as {path: GLOB}"));
    return std::nullopt;
  }
  const std::optional<std::vector<Member>> members = members_of(
      name, node, {"path", "name", "weight", "format", "subset", "repeat", "columns", "roles"});
  if (!members) return std::nullopt;
  bool usable = true;
  bool has_path = false;
  for (const Member& member : *members) {
    const std::string full = cat(name, ".", member.name);
    out_.given.emplace_back(full, member.place);
    has_path = has_path || member.name == "path";
    usable = source_member(full, member, result) && usable;
  }
  if (!has_path) complain(problem(cat(name, " has no path")).at(place).must("be {path: GLOB}"));
  return usable && has_path ? std::optional(result) : std::nullopt;
}

bool ValueReader::source_columns(const std::string& full, const Member& member,
                                 DataSource& source) {
  if (!member.value.IsMap()) {
    complain(problem(received(full, member.value))
                 .at(member.place)
                 .must("be a mapping of columns")
                 .remedy("Write {messages: NAME}, the name that the file has."));
    return false;
  }
  const auto columns = members_of(full, member.value, {kColumnNames.begin(), kColumnNames.end()});
  if (!columns) return false;
  bool usable = true;
  for (const Member& column : *columns) {
    const std::string path = cat(full, ".", column.name);
    const auto name = column.value.IsScalar() ? text(path, column.value, column.place)
                                              : std::optional<std::string>();
    if (!name || name->empty()) {
      usable = false;
      if (!column.value.IsScalar() || name)
        complain(problem(name ? cat(path, " is \"\"") : received(path, column.value))
                     .at(column.place)
                     .must("be the name of a column"));
      continue;
    }
    source.columns[column.name] = *name;
  }
  return usable;
}

bool ValueReader::source_roles(const std::string& full, const Member& member, DataSource& source) {
  if (!member.value.IsMap()) {
    complain(problem(received(full, member.value))
                 .at(member.place)
                 .must("be a mapping of roles")
                 .remedy("Write {assistant: WORD}, the word that the file has."));
    return false;
  }
  const auto roles = members_of(full, member.value, {kRoleNames.begin(), kRoleNames.end()});
  if (!roles) return false;
  bool usable = true;
  for (const Member& role : *roles) {
    const Key key = {.path = cat(full, ".", role.name), .type = Type::words, .any_alone = true};
    const std::optional<Value> value = words(key, role.value, role.place);
    if (!value) {
      usable = false;
      continue;
    }
    for (const std::string& word : std::get<std::vector<std::string>>(*value)) {
      if (!word.empty()) continue;
      complain(problem(cat(key.path, " is \"\"")).at(role.place).must("be words of the files"));
      usable = false;
    }
    source.roles[role.name] = std::get<std::vector<std::string>>(*value);
  }
  return usable;
}

bool ValueReader::source_member(const std::string& full, const Member& member, DataSource& source) {
  if (member.name == "columns") return source_columns(full, member, source);
  if (member.name == "roles") return source_roles(full, member, source);
  if (!member.value.IsScalar()) {
    complain(problem(cat(full, " is ", described(member.value)))
                 .at(member.place)
                 .must(member.name == "path" ? "be a glob" : "be a single value"));
    return false;
  }
  if (member.name == "path") {
    const auto glob = path(full, member.value, member.place);
    source.path = glob.value_or("");
    return glob.has_value();
  }
  if (member.name == "weight") {
    source.weight = real(full, member.value, member.place);
    return source.weight.has_value();
  }
  if (member.name == "repeat") {
    const auto repeat = integer<int64_t>(full, member.value, member.place);
    if (repeat) source.repeat = std::get<int64_t>(*repeat);
    return repeat.has_value();
  }
  const auto word = text(full, member.value, member.place);
  if (!word) return false;
  if (member.name == "format") {
    source.format = meaning<DataFormat>(*word);
    if (!source.format) {
      complain(problem(cat(full, " is ", *word))
                   .at(member.place)
                   .must(cat("be one of ", join(find_key("data.format")->allowed)))
                   .remedy(hint_for_word(*find_key("data.format"), *word)));
    }
    return source.format.has_value();
  }
  (member.name == "name" ? source.name : source.subset) = *word;
  return true;
}

}  // namespace tptrain::config
