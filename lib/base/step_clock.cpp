#include "base/step_clock.h"

#include <utility>

namespace tptrain {

const char* name_of(StepPhase phase) {
  switch (phase) {
    case StepPhase::data:
      return "data";
    case StepPhase::forward_backward:
      return "forward_backward";
    case StepPhase::communication:
      return "communication";
    case StepPhase::optimizer:
      return "optimizer";
    case StepPhase::launch:
      return "launch";
    case StepPhase::device:
      return "device";
    case StepPhase::other:
      break;
  }
  return "other";
}

StepPhase StepClock::enter(StepPhase phase) {
  const Clock::time_point now = Clock::now();
  seconds_[static_cast<size_t>(phase_)] += std::chrono::duration<double>(now - since_).count();
  since_ = now;
  return std::exchange(phase_, phase);
}

StepClock::Seconds StepClock::take() {
  enter(phase_);
  return std::exchange(seconds_, {});
}

}  // namespace tptrain
