// Learning rate as a pure function of the step: constant, linear, cosine, or wsd (warm-up, stable,
// decay). Source of wsd: Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with
// Scalable Training Strategies", 2024, section 4 (which leaves the form of the decay open: here it
// is linear, over the tenth of the steps that they found to suffice unless said otherwise).
#pragma once

#include <cstdint>

#include "config/run_config.h"

namespace tptrain::optim {

/// How many of the last steps wsd falls over: scheduler.decay_steps, or where that is 0 a tenth of
/// max_steps, at least 1.
int64_t wsd_decay_steps(const config::SchedulerConfig& scheduler, int64_t max_steps);

class LearningRateSchedule {
 public:
  /// `max_steps`: where linear, cosine and wsd reach min_lr.
  LearningRateSchedule(const config::SchedulerConfig& scheduler, double peak_learning_rate,
                       int64_t max_steps);
  /// Rate of the update of step `step` (0 is the first): warm-up rises linearly, peak * (step + 1)
  /// / (warmup_steps + 1), then the named shape. A warm-up that reaches into the steps of the
  /// fall shortens it.
  double learning_rate(int64_t step) const;

 private:
  config::SchedulerConfig scheduler_;
  double peak_;
  int64_t max_steps_;
};

}  // namespace tptrain::optim
