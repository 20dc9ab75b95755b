// Learning rate as a pure function of the step.
#pragma once

#include <cstdint>

#include "config/run_config.h"

namespace tptrain::optim {

class LearningRateSchedule {
 public:
  /// `max_steps`: where linear and cosine reach min_lr.
  LearningRateSchedule(const config::SchedulerConfig& scheduler, double peak_learning_rate,
                       int64_t max_steps);
  /// Rate of the update of step `step` (0 is the first): warm-up rises linearly, peak * (step + 1)
  /// / (warmup_steps + 1), then the named shape.
  double learning_rate(int64_t step) const;

 private:
  config::SchedulerConfig scheduler_;
  double peak_;
  int64_t max_steps_;
};

}  // namespace tptrain::optim
