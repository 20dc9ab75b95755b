#include "report/time_share.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace tptrain::report {

double seconds_of_start(const std::string& when) {
  tm utc{};
  if (::strptime(when.c_str(), "%Y-%m-%d %H:%M:%S UTC", &utc) == nullptr) return kNoNumber;
  return static_cast<double>(::timegm(&utc));
}

namespace {

// In the order of a step; others follow as the file has them.
constexpr std::array kPhases = {"data",      "forward_backward", "communication",
                                "optimizer", "launch",           "device"};

struct Phase {
  std::string name;
  const std::vector<double>* values;
  double seconds = 0;
};

std::vector<Phase> phases_of(const Columns& rows) {
  constexpr std::string_view kPrefix = "phases/";
  std::vector<Phase> phases;
  for (const char* name : kPhases) {
    const std::vector<double>* values = rows.find(std::string(kPrefix) + name);
    if (values != nullptr) phases.push_back({name, values});
  }
  for (const Columns::Column& column : rows.all()) {
    const std::string_view name = column.name;
    if (!name.starts_with(kPrefix)) continue;
    const std::string phase(name.substr(kPrefix.size()));
    if (std::find(kPhases.begin(), kPhases.end(), phase) == kPhases.end())
      phases.push_back({phase, &column.values});
  }
  return phases;
}

/// Adds what row `i`, whose steps took `in_steps`, spent in each phase.
void add_phases(size_t i, double step_time, double in_steps, std::vector<Phase>& phases) {
  if (!(step_time > 0) || !std::isfinite(in_steps)) return;
  for (Phase& phase : phases) {
    const double value = (*phase.values)[i];
    if (std::isfinite(value)) phase.seconds += in_steps * std::clamp(value / step_time, 0.0, 1.0);
  }
}

}  // namespace

TimeShare time_share(const RunRecord& run) {
  const Columns& rows = run.metrics.steps;
  const std::vector<double>* times = rows.find("time");
  const std::vector<double>* of_steps = rows.find("step_time_s");
  TimeShare share;
  if (times == nullptr || of_steps == nullptr) return share;
  std::vector<double> starts;
  for (const Start& start : run.log.starts) {
    const double at = seconds_of_start(start.when);
    if (std::isfinite(at)) starts.push_back(at);
  }
  std::sort(starts.begin(), starts.end());
  std::vector<Phase> phases = phases_of(rows);
  double previous = kNoNumber;
  for (size_t i = 0; i < rows.size(); ++i) {
    const double now = (*times)[i];
    if (!std::isfinite(now)) continue;
    // The last start since the row before. The clock of the log has whole seconds.
    const auto behind = std::upper_bound(starts.begin(), starts.end(), now);
    const double start = behind == starts.begin() ? kNoNumber : *(behind - 1);
    if (std::isnan(previous) || start > previous) {
      if (!std::isnan(start)) share.starting_s += now - start;
      if (!std::isnan(previous)) share.stopped_s += start - previous;
    } else {
      const double gap = std::max(0.0, now - previous);
      const auto steps = static_cast<double>(i > 0 ? rows.steps()[i] - rows.steps()[i - 1] : 1);
      const double in_steps = std::clamp((*of_steps)[i] * std::max(steps, 1.0), 0.0, gap);
      share.steps_s += std::isfinite(in_steps) ? in_steps : gap;
      share.other_s += std::isfinite(in_steps) ? gap - in_steps : 0;
      add_phases(i, (*of_steps)[i], in_steps, phases);
    }
    previous = now;
  }
  for (Phase& phase : phases) share.phases.emplace_back(std::move(phase.name), phase.seconds);
  double saves = 0;
  if (const std::vector<double>* stalls = run.metrics.saves.find("save_stall_s")) {
    for (const double stall : *stalls) saves += std::isfinite(stall) ? stall : 0;
  } else {  // of a run whose saves were not yet among its numbers
    for (const Save& save : run.log.saves) saves += save.seconds;
  }
  share.saves_s = std::min(saves, share.other_s);
  share.other_s -= share.saves_s;
  return share;
}

}  // namespace tptrain::report
