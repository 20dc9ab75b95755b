#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::optim {

LearningRateSchedule::LearningRateSchedule(const config::SchedulerConfig& scheduler,
                                           double peak_learning_rate, int64_t max_steps)
    : scheduler_(scheduler), peak_(peak_learning_rate), max_steps_(max_steps) {
  if (scheduler.type == "constant" || scheduler.type == "linear" || scheduler.type == "cosine")
    return;
  throw ConfigError(problem(cat("scheduler.type is ", scheduler.type))
                        .must("be constant, linear or cosine")
                        .remedy("Set scheduler.type to one of them."));
}

double LearningRateSchedule::learning_rate(int64_t step) const {
  const int64_t warmup = scheduler_.warmup_steps;
  if (step < warmup) return peak_ * static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  if (scheduler_.type == "constant") return peak_;
  // A warm-up as long as the run leaves no steps to fall in: the fall is over where it would begin.
  const int64_t falling_steps = max_steps_ - warmup;
  const double progress =
      falling_steps > 0
          ? std::min(1.0, static_cast<double>(step - warmup) / static_cast<double>(falling_steps))
          : 1.0;
  if (progress >= 1.0) return scheduler_.min_lr;  // exactly, where the formulas below would round
  const double share = scheduler_.type == "linear"
                           ? 1.0 - progress
                           : 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  return scheduler_.min_lr + (peak_ - scheduler_.min_lr) * share;
}

}  // namespace tptrain::optim
