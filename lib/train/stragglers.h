// Which rank holds the others up: from audit to audit the time that each rank's own work takes, by
// phase, against that of the median rank. Arithmetic and text; the trainer measures and gathers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tptrain::train {

/// Of one rank, over the steps since the last audit.
struct RankPace {
  int64_t steps = 0;
  double data_s = 0;     // reading its batches
  double compute_s = 0;  // the step without waiting in collectives; CPU alone
  double waiting_s = 0;  // in collectives, for others mostly; CPU alone
  double probe_s = 0;    // a thousand products of a fixed size on its GPU, now; GPUs alone
};

std::string to_wire(const RankPace& pace);
RankPace pace_from_wire(const std::string& text);

struct PaceReport {
  std::string line;                   // for the log
  std::vector<std::string> warnings;  // a line a rank that is too slow
};

inline constexpr double kTooSlow = 1.2;  // times the median

/// `of_ranks`: in rank order, at least one; `places`: "rank 2 on node1 (GPU 2)", likewise.
PaceReport pace_report(const std::vector<RankPace>& of_ranks,
                       const std::vector<std::string>& places);

}  // namespace tptrain::train
