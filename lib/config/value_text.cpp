// A value as YAML text: what messages show and resolved_config.yaml holds.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "base/printable.h"
#include "base/text.h"
#include "base/utf8.h"
#include "config/keys.h"

namespace tptrain::config {
namespace {

std::string real_text(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) {
    return cat(static_cast<int64_t>(value), ".0");
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;  // shortest exact form
  std::string text(buffer, end);
  const size_t exponent = text.find("e-0");  // 1e-05 reads better as 1e-5
  if (exponent != std::string::npos) text.erase(exponent + 2, 1);
  return text;
}

std::string quoted_text(const std::string& text) {
  // Plain only where no YAML reader could see anything but a text in it.
  const bool plain =
      !text.empty() && (std::isalpha(static_cast<unsigned char>(text[0])) || text[0] == '/') &&
      std::all_of(text.begin(), text.end(),
                  [](unsigned char c) {
                    return c < 128 &&
                           (std::isalnum(c) || c == '_' || c == '/' || c == '.' || c == '-');
                  }) &&
      text != "null" && text != "Null" && text != "NULL" && text != "true" && text != "false" &&
      text != "yes" && text != "no" && text != "on" && text != "off";
  return plain ? text : nlohmann::json(text).dump();  // a JSON string is a YAML string
}

// {match: "*.bias", weight_decay: 0.0, learning_rate_scale: 1.0}
std::string group_text(const ParameterGroup& group) {
  std::string text = cat("{match: ", quoted_text(group.match));
  if (group.weight_decay) text += cat(", weight_decay: ", real_text(*group.weight_decay));
  return cat(text, ", learning_rate_scale: ", real_text(group.learning_rate_scale), "}");
}

// A plain path, or {path: a.txt, weight: 0.5}.
std::string source_text(const DataSource& source) {
  std::string more;
  const auto add = [&](const char* name, const std::string& value) {
    more += cat(", ", name, ": ", value);
  };
  if (!source.name.empty()) add("name", quoted_text(source.name));
  if (source.weight) add("weight", real_text(*source.weight));
  if (source.format) add("format", quoted_text(word(*source.format)));
  if (!source.subset.empty()) add("subset", quoted_text(source.subset));
  if (source.repeat != 1) add("repeat", std::to_string(source.repeat));
  if (!source.columns.empty()) {
    std::vector<std::string> columns;
    for (const auto& [ours, theirs] : source.columns)
      columns.push_back(cat(ours, ": ", quoted_text(theirs)));
    add("columns", cat("{", join(columns), "}"));
  }
  if (!source.roles.empty()) {
    std::vector<std::string> roles;
    for (const auto& [ours, theirs] : source.roles)
      roles.push_back(cat(ours, ": ", yaml_text(Value(theirs))));
    add("roles", cat("{", join(roles), "}"));
  }
  const std::string path = quoted_text(source.path);
  return more.empty() ? path : cat("{path: ", path, more, "}");
}

// A list, or {wiki: [a.txt], chat: [b.jsonl, c.jsonl]}.
std::string sources_text(const std::vector<DataSource>& sources) {
  std::vector<std::string> sets;
  std::vector<std::string> texts;
  for (size_t i = 0; i < sources.size(); ++i) {
    texts.push_back(source_text(sources[i]));
    if (sources[i].set.empty()) continue;
    if (i + 1 < sources.size() && sources[i + 1].set == sources[i].set) continue;
    sets.push_back(cat(quoted_text(sources[i].set), ": [", join(texts), "]"));
    texts.clear();
  }
  return sets.empty() ? cat("[", join(texts), "]") : cat("{", join(sets), "}");
}

}  // namespace

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

std::string shown(const std::string& text) {
  constexpr size_t kLongest = 200;
  const std::string_view begin = utf8_prefix(text, kLongest);
  const std::string out = printable_line(begin);
  return begin.size() == text.size() ? out : cat(out, "... (", text.size(), " bytes)");
}

std::string yaml_text(const Value& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return quoted_text(v);
        } else if constexpr (std::is_same_v<T, bool>) {
          return v ? "true" : "false";
        } else if constexpr (std::is_same_v<T, double>) {
          return real_text(v);
        } else if constexpr (std::is_same_v<T, std::vector<double>>) {
          std::vector<std::string> texts;
          for (const double element : v) texts.push_back(real_text(element));
          return cat("[", join(texts), "]");
        } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
          std::vector<std::string> texts;
          for (const std::string& word : v) texts.push_back(quoted_text(word));
          return cat("[", join(texts), "]");
        } else if constexpr (std::is_same_v<T, std::vector<DataSource>>) {
          return sources_text(v);
        } else if constexpr (std::is_same_v<T, std::vector<ParameterGroup>>) {
          std::vector<std::string> texts;
          for (const ParameterGroup& group : v) texts.push_back(group_text(group));
          return cat("[", join(texts), "]");
        } else {
          return std::to_string(v);
        }
      },
      value);
}

}  // namespace tptrain::config
