// run_dir/resolved_config.yaml, and values by key, from the list of keys.
#include <sstream>

#include "base/text.h"
#include "config/key_values.h"
#include "config/keys.h"
#include "config/parse.h"

namespace tptrain::config {

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

std::map<std::string, std::string> key_values(const RunConfig& config) {
  std::map<std::string, std::string> values;
  for (const Key& key : keys()) {
    if (const auto value = key.get(config)) values[key.path] = yaml_text(*value);
  }
  return values;
}

std::map<std::string, std::string> default_values() {
  std::map<std::string, std::string> values;
  for (const Key& key : keys()) {
    if (const auto value = default_value(key)) values[key.path] = yaml_text(*value);
  }
  return values;
}

}  // namespace tptrain::config
