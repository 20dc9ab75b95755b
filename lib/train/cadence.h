// How often something is done in the course of a training: by steps, by passes over the data, or
// both.
#pragma once

#include <cstdint>

namespace tptrain::train {

/// Whether `step` is one of every `every`; 0: none is.
inline bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

struct Cadence {
  int64_t every_steps = 0;   // 0: not by steps
  int64_t every_epochs = 0;  // 0: not by epochs
  int64_t global_batch = 1;  // sequences
  int64_t sequences = 1;     // of an epoch

  /// How often within the first `steps`.
  int64_t times(int64_t steps) const {
    int64_t times = every_steps > 0 ? steps / every_steps : 0;
    int64_t before = 0;
    for (int64_t epoch = 1; epoch <= epochs(steps); ++epoch) {
      const int64_t step = last_step_of(epoch);
      // What falls into one step is done once.
      if (step != before && (every_steps == 0 || step % every_steps != 0)) ++times;
      before = step;
    }
    return times;
  }
  /// Whether it is due when `step` steps are done; before the first where it is done at all.
  bool due(int64_t step) const {
    if (step == 0) return every_steps > 0 || every_epochs > 0;
    if (every_steps > 0 && step % every_steps == 0) return true;
    return epochs(step) > epochs(step - 1);
  }
  /// How often from `step` to `last`, which is the last step and counts in any case.
  int64_t left(int64_t step, int64_t last) const {
    return step >= last ? 0 : times(last) - times(step) + (due(last) ? 0 : 1);
  }

 private:
  /// How often every_epochs have passed.
  int64_t epochs(int64_t steps) const {
    return every_epochs > 0 ? steps * global_batch / (sequences * every_epochs) : 0;
  }
  int64_t last_step_of(int64_t epoch) const {
    return (epoch * every_epochs * sequences + global_batch - 1) / global_batch;
  }
};

}  // namespace tptrain::train
