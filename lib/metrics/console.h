// What a person sees of the steps: a line of the log, and one line redrawn in place on a terminal.
// One name a speed: "tokens/s" is that of the whole job, metrics.jsonl's tokens_per_second.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "base/terminal_line.h"
#include "metrics/step_metrics.h"

namespace tptrain::metrics {

/// How long the steps that are left will take, from the pace of the last 20 or so.
class StepPace {
 public:
  /// `first_step`: steps done when this process began; its first step warms everything up and says
  /// little about the others.
  StepPace(int64_t first_step, int64_t max_steps);
  void add(int64_t step, double step_time_s);
  double seconds_left() const;
  double seconds_a_step() const { return average_s_; }  // 0 before the first

 private:
  int64_t first_step_;
  int64_t max_steps_;
  int64_t step_;
  double average_s_ = 0;
};

/// "step 20/100  loss 8.1234  norm 1.23  12,345 tokens/s  mfu 41.2%  ETA 3m 5s", with fewer parts
/// where it would not fit into `width` columns (mfu left out where absent).
std::string step_line(const StepMetrics& metrics, int64_t max_steps, double eta_s, int width);

/// The same behind a bar, in width - 1 columns.
std::string progress_line(const StepMetrics& metrics, int64_t max_steps, double eta_s, int width);

/// The progress line on a terminal.
class ProgressDisplay {
 public:
  ProgressDisplay(int64_t max_steps, TerminalLine& line) : max_steps_(max_steps), line_(line) {}
  /// Draws at most ten times a second, where a line of the log took its place, and at the last
  /// step.
  void update(const StepMetrics& metrics, double eta_s);

 private:
  int64_t max_steps_;
  TerminalLine& line_;
  std::optional<std::chrono::steady_clock::time_point> last_draw_;
};

}  // namespace tptrain::metrics
