// A YAML node -> the value of one key, of the type that the key has, with a Problem for whatever is
// wrong with it. Knows types and the members of list entries, not bounds (checks.cpp). Private to
// this folder.
#pragma once

#include <yaml-cpp/yaml.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "config/keys.h"
#include "config/yaml_document.h"
#include "config/yaml_entries.h"

namespace tptrain::config {

/// What was received, for a message: "a list", "null", the scalar itself.
std::string described(const YAML::Node& node);
/// "parallel.tp_size is "2"": a quoted scalar shows its quotes, since they are what is wrong with
/// it.
std::string received(const std::string& path, const YAML::Node& node);

/// The names that a mapping has given so far, with their places.
using SeenNames = std::unordered_map<std::string, std::string>;

class ValueReader {
 public:
  /// Problems, and the places of what stands within a list ("optimizer.groups[0].match"), go to
  /// `out`, which must outlive it.
  ValueReader(PlaceOf place_of, Entries& out);

  /// Nothing, and problems more, where `node` is of another type than `key`.
  std::optional<Value> read(const Key& key, const YAML::Node& node, const std::string& place);

  /// The name of a mapping's key, where it is a text and not yet in `seen`, to which it is added.
  /// `mapping` is what messages call the mapping; `prefix` stands before its keys ("" for none).
  std::optional<std::string> key_name(const YAML::Node& key_node, const std::string& mapping,
                                      const std::string& prefix, SeenNames& seen);

 private:
  struct Member {
    std::string name;
    YAML::Node value;
    std::string place;
  };

  void complain(Problem p) { out_.complain(std::move(p)); }
  template <typename Integer>
  std::optional<Value> integer(const std::string& path, const YAML::Node& node,
                               const std::string& place);
  std::optional<double> real(const std::string& path, const YAML::Node& node,
                             const std::string& place);
  std::optional<std::string> text(const std::string& name, const YAML::Node& node,
                                  const std::string& place);
  std::optional<Value> word(const Key& key, const YAML::Node& node, const std::string& place);
  std::optional<std::string> path(const std::string& name, const YAML::Node& node,
                                  const std::string& place);
  std::optional<Value> boolean(const Key& key, const YAML::Node& node, const std::string& place);
  std::optional<Value> betas(const Key& key, const YAML::Node& node, const std::string& place);
  std::optional<Value> words(const Key& key, const YAML::Node& node, const std::string& place);
  std::optional<Value> sources(const Key& key, const YAML::Node& node, const std::string& place);
  std::optional<Value> groups(const Key& key, const YAML::Node& node, const std::string& place);
  std::optional<Value> source_sets(const Key& key, const YAML::Node& node);
  std::optional<std::vector<DataSource>> source_list(const std::string& name,
                                                     const YAML::Node& node,
                                                     const std::string& place);
  std::optional<DataSource> source(const std::string& name, const YAML::Node& node,
                                   const std::string& place);
  bool source_member(const std::string& full, const Member& member, DataSource& source);
  bool source_columns(const std::string& full, const Member& member, DataSource& source);
  bool source_roles(const std::string& full, const Member& member, DataSource& source);
  std::optional<ParameterGroup> group(const std::string& name, const YAML::Node& node,
                                      const std::string& place);
  /// The members of an entry of a list; nothing where one is not among `known` or given twice.
  std::optional<std::vector<Member>> members_of(const std::string& name, const YAML::Node& node,
                                                const std::vector<std::string>& known);

  PlaceOf place_of_;
  Entries& out_;
};

}  // namespace tptrain::config
