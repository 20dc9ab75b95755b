// Where the host's time goes within a step, by phase. Each moment counts for one phase, the
// innermost: what a collective takes within the forward is communication. One thread writes it.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>

namespace tptrain {

enum class StepPhase {
  data,              // reading the batch
  forward_backward,  // on the CPU, as the optimizer
  communication,     // agreeing on the batch, and in collectives: mostly waiting for other ranks
  optimizer,         // norm, clipping and update
  launch,            // on GPUs: handing work to the device
  device,            // on GPUs: waiting for it
  other
};
inline constexpr size_t kStepPhases = 7;
/// "forward_backward"
const char* name_of(StepPhase phase);

class StepClock {
 public:
  using Seconds = std::array<double, kStepPhases>;

  StepClock() : since_(Clock::now()) {}
  StepClock(const StepClock&) = delete;
  StepClock& operator=(const StepClock&) = delete;

  /// As long as it lives time counts for `phase`. `clock` may be null.
  class In {
   public:
    In(StepClock* clock, StepPhase phase) : clock_(clock) {
      if (clock_ != nullptr) outer_ = clock_->enter(phase);
    }
    ~In() {
      if (clock_ != nullptr) clock_->enter(outer_);
    }
    In(const In&) = delete;
    In& operator=(const In&) = delete;

   private:
    StepClock* clock_;
    StepPhase outer_ = StepPhase::other;
  };

  /// Since the last call, or construction. Begins anew.
  Seconds take();

 private:
  using Clock = std::chrono::steady_clock;
  StepPhase enter(StepPhase phase);

  Seconds seconds_ = {};
  StepPhase phase_ = StepPhase::other;
  Clock::time_point since_;
};

}  // namespace tptrain
