// Settings of several runs, or of several starts of one, side by side.
#pragma once

#include <string>
#include <vector>

#include "report/run_record.h"

namespace tptrain::report {

struct SettingRow {
  std::string key;
  std::vector<std::string> values;  // one a run; "" where a run has none of that name
};
/// The keys that are not the same in all, in their order; run_dir, by which runs are told apart
/// anyway, is left out.
std::vector<SettingRow> differing(const std::vector<const Settings*>& of_runs);

struct SettingChange {
  int64_t step = 0;  // the start that began behind it brought it
  std::string key;
  std::string before;
  std::string after;
};
/// From each start of a run to the next one.
std::vector<SettingChange> changes_of(const RunRecord& run);

}  // namespace tptrain::report
