// The state of a run in a few words and numbers: a row of the report, the head of `tptrain watch`.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "report/run_record.h"

namespace tptrain::report {

/// Texts for people; "" where it is not known.
struct Summary {
  std::string state;  // "done", "stopped", "failed", "running or killed", "no step yet"
  std::string step;   // "120/600"
  std::string loss;
  std::string best_eval;          // "1.2345 (step 100)"
  std::string tokens_per_second;  // median of the last rows
  std::string mfu;
  std::string peak_memory;
  std::string last_checkpoint;  // "step-00000100"
  std::string duration;         // from the first to the last number, restarts included
};
Summary summary_of(const RunRecord& run);

/// What one source of a mixture has given so far.
struct SourceUse {
  std::string name;
  double sequences = 0;
  double epoch = 0;  // passes over it
};
/// Empty where a run has no mixture with weights.
std::vector<SourceUse> sources_of(const RunRecord& run);

/// Median of a column's last 20 numbers; NaN where it has none.
double recent(const Columns& rows, const std::string& column);

/// Seconds that the steps still to do will take at the pace of the last 20 rows; NaN where that is
/// not known.
double seconds_left(const RunRecord& run);

/// "2026-11-29 19:15:37 UTC"; "" of NaN.
std::string utc_text(double seconds_since_1970);

}  // namespace tptrain::report
