// Whether a step is faster replayed from a CUDA graph or issued call by call, by measuring some of
// each. A graph saves launches, which short steps wait for; but in a graph collectives hold up the
// kernels around them a little each time, which long steps, whose launches cost nothing, would
// feel. Replays are measured before and after the others: a device that grows warm slows down, by
// more than what is looked for. Knows nothing of what a step does; the numbers are the same either
// way.
#pragma once

#include <c10/core/Device.h>

#include <array>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace tptrain::train {

enum class StepWay { issued, replayed };

/// A moment between two steps.
class StepMark {
 public:
  virtual ~StepMark() = default;
  /// From `earlier` to this one, of the same kind, when both have passed.
  virtual float ms_since(StepMark& earlier) = 0;
};
/// When the device has done what its current stream has been given until now.
std::unique_ptr<StepMark> mark_on(c10::Device device);

class GraphTrial {
 public:
  static constexpr std::array kPhases = {StepWay::replayed, StepWay::issued, StepWay::replayed};
  static constexpr int kTimed = 5;  // steps of each phase; the one before them is not
  struct StepMs {
    float issued = 0;
    float replayed = 0;
  };

  /// `mark`: now.
  explicit GraphTrial(std::function<std::unique_ptr<StepMark>()> mark) : mark_(std::move(mark)) {}

  /// Of the next step, where the caller can choose. Not when complete.
  StepWay next() const { return kPhases[phase_]; }
  /// A step has been made.
  void done(StepWay way);
  bool is_complete() const { return phase_ == kPhases.size(); }
  /// When complete: medians of either way's steps, replays' the mean of before and after.
  StepMs step_ms();

 private:
  std::function<std::unique_ptr<StepMark>()> mark_;
  size_t phase_ = 0;
  // Of steps one behind the other.
  std::array<std::vector<std::unique_ptr<StepMark>>, kPhases.size()> ends_;
};

}  // namespace tptrain::train
