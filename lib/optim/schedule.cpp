#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tptrain::optim {

using config::Schedule;

int64_t wsd_decay_steps(const config::SchedulerConfig& scheduler, int64_t max_steps) {
  if (scheduler.decay_steps > 0) return scheduler.decay_steps;
  return std::max<int64_t>(1, max_steps / 10);
}

LearningRateSchedule::LearningRateSchedule(const config::SchedulerConfig& scheduler,
                                           double peak_learning_rate, int64_t max_steps)
    : scheduler_(scheduler), peak_(peak_learning_rate), max_steps_(max_steps) {}

double LearningRateSchedule::learning_rate(int64_t step) const {
  const int64_t warmup = scheduler_.warmup_steps;
  if (step < warmup) return peak_ * static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  if (scheduler_.type == Schedule::constant) return peak_;
  const int64_t first_falling_step =
      scheduler_.type == Schedule::wsd
          ? std::max(warmup, max_steps_ - wsd_decay_steps(scheduler_, max_steps_))
          : warmup;
  if (step < first_falling_step) return peak_;
  // A warm-up as long as the run leaves no steps to fall in: the fall is over where it would begin.
  const int64_t falling_steps = max_steps_ - first_falling_step;
  const double progress = falling_steps > 0
                              ? std::min(1.0, static_cast<double>(step - first_falling_step) /
                                                  static_cast<double>(falling_steps))
                              : 1.0;
  if (progress >= 1.0) return scheduler_.min_lr;  // exactly, where the formulas below would round
  const double share = scheduler_.type == Schedule::cosine
                           ? 0.5 * (1.0 + std::cos(std::numbers::pi * progress))
                           : 1.0 - progress;
  return scheduler_.min_lr + (peak_ - scheduler_.min_lr) * share;
}

}  // namespace tptrain::optim
