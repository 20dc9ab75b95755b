// When a run has to end so that its last save is done in time: by train.max_time, or by the end of
// the scheduler's job.
#pragma once

#include <chrono>
#include <optional>
#include <string>

namespace tptrain::train {

class TimeLimit {
 public:
  using Time = std::chrono::system_clock::time_point;
  struct Options {
    Time process_start = {};
    std::optional<double> max_time_s = {};  // from there
    std::optional<Time> job_end = {};       // as the scheduler says
  };
  explicit TimeLimit(const Options& options);

  /// Whether another step, and a save after it, may come too late. Both as they took last; twice
  /// that is left for them.
  bool is_up(Time now, double step_s, double save_s) const;
  /// "train.max_time" or "the end of the Slurm job".
  const std::string& reason() const { return reason_; }

 private:
  std::optional<Time> end_;
  std::string reason_;
};

/// SLURM_JOB_END_TIME, where that is set and a time.
std::optional<TimeLimit::Time> slurm_job_end();

}  // namespace tptrain::train
