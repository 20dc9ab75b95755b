// metrics.jsonl changes its run: the lines of the one before are kept.
#pragma once

#include <filesystem>
#include <string>

namespace tptrain::metrics {

/// The runs that a start is about, by their ids; "" where none is known.
struct MetricsOwners {
  std::string before;  // whose run_dir/metrics.jsonl is
  std::string now;     // who is about to write it
  std::string from;    // at whose checkpoint `now` begins
};

/// Where metrics.jsonl is of another run it is kept as metrics-<first 8 digits of its id>.jsonl,
/// and the new one begins with the lines of the run that `now` branched off, where they are here.
/// No line is lost by it. Throws DataError where a file cannot be read or written.
void hand_over_metrics(const std::filesystem::path& run_dir, const MetricsOwners& owners);

}  // namespace tptrain::metrics
