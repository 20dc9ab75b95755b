#include "config/flat_values.h"

#include <yaml-cpp/yaml.h>

#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "config/yaml_document.h"

namespace tptrain::config {
namespace {

using Values = std::vector<std::pair<std::string, std::string>>;

/// Walks over a tree whose aliases may name a part of it again and again.
class Flattener {
 public:
  explicit Flattener(const std::string& name) : name_(name) {}

  void add(const std::string& prefix, const YAML::Node& node) {
    if (!node.IsMap() || node.size() == 0) {
      values.emplace_back(prefix, in_one_line(node));
      return;
    }
    for (const auto& entry : node) {
      const std::string key = in_one_line(entry.first);
      add(prefix.empty() ? key : cat(prefix, ".", key), entry.second);
    }
  }

  Values values;

 private:
  std::string in_one_line(const YAML::Node& node) {
    spend(node.IsScalar() ? node.Scalar().size() : 2);
    if (node.IsScalar()) return node.Scalar();
    std::vector<std::string> parts;
    if (node.IsSequence()) {
      for (const YAML::Node& element : node) parts.push_back(in_one_line(element));
      return cat("[", join(parts), "]");
    }
    if (!node.IsMap()) return "";  // null
    for (const auto& entry : node)
      parts.push_back(cat(in_one_line(entry.first), ": ", in_one_line(entry.second)));
    return cat("{", join(parts), "}");
  }

  void spend(size_t bytes) {
    constexpr size_t kMost = size_t{16} << 20;
    spent_ += bytes + 1;
    if (spent_ > kMost)
      throw ConfigError(problem(cat("its values take more than ", kMost >> 20, " MiB"))
                            .at(name_)
                            .must("be settings as a run writes them down"));
  }

  std::string name_;
  size_t spent_ = 0;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> flat_values(const std::string& yaml_text,
                                                             const std::string& name) {
  const auto place_of = [&](const YAML::Mark& mark) {
    return cat(name, ":", mark.line + 1, ":", mark.column + 1);
  };
  std::vector<Problem> problems;
  const std::optional<YAML::Node> document = load_document(yaml_text, place_of, "", problems);
  if (!document) throw ConfigError(problems);
  Flattener flattener(name);
  if (document->IsMap()) flattener.add("", *document);
  return std::move(flattener.values);
}

}  // namespace tptrain::config
