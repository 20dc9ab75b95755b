// Where the time of a run went, from the first start that its log knows to its last number.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "report/run_record.h"

namespace tptrain::report {

struct TimeShare {
  double starting_s = 0;  // from a start to its first number
  double steps_s = 0;
  /// Of steps_s, by the names of "phases" in metrics.jsonl, in the order in which a step has them;
  /// empty where a run does not say it.
  std::vector<std::pair<std::string, double>> phases = {};
  double saves_s = 0;    // that training waited for saves
  double other_s = 0;    // between steps beside that: evaluations above all
  double stopped_s = 0;  // from a start's last number to the next start

  double total_s() const { return starting_s + steps_s + saves_s + other_s + stopped_s; }
};

/// Where not every step is logged, those between count as long as the logged one behind them, but
/// never longer than the time that passed.
TimeShare time_share(const RunRecord& run);

/// Seconds since 1970 of "2026-11-29 19:15:37 UTC"; NaN where it is no such text.
double seconds_of_start(const std::string& when);

}  // namespace tptrain::report
