#include "report/settings_table.h"

#include <algorithm>
#include <map>
#include <set>

namespace tptrain::report {

std::vector<SettingRow> differing(const std::vector<const Settings*>& of_runs) {
  std::vector<std::string> order;
  std::set<std::string> seen;
  std::vector<std::map<std::string, std::string>> values(of_runs.size());
  for (size_t run = 0; run < of_runs.size(); ++run) {
    for (const auto& [key, value] : *of_runs[run]) {
      values[run][key] = value;
      if (seen.insert(key).second) order.push_back(key);
    }
  }
  std::vector<SettingRow> rows;
  for (const std::string& key : order) {
    if (key == "run_dir") continue;
    SettingRow row{key, {}};
    for (const auto& of_run : values) {
      const auto found = of_run.find(key);
      row.values.push_back(found == of_run.end() ? "" : found->second);
    }
    const bool same = std::all_of(row.values.begin(), row.values.end(),
                                  [&](const std::string& v) { return v == row.values.front(); });
    if (!same) rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<SettingChange> changes_of(const RunRecord& run) {
  std::vector<SettingChange> changes;
  for (size_t i = 1; i < run.changed.size(); ++i) {
    for (SettingRow& row : differing({&run.changed[i - 1].values, &run.changed[i].values}))
      changes.push_back({run.changed[i].from_step, row.key, row.values[0], row.values[1]});
  }
  return changes;
}

}  // namespace tptrain::report
