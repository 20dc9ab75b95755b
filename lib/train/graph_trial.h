// Whether a step is faster replayed from a CUDA graph or issued call by call, by measuring some of
// each. A graph saves launches, which short steps wait for; but in a graph collectives hold up the
// kernels around them a little each time, which long steps, whose launches cost nothing, would
// feel. Replays are measured before and after the others: a device that grows warm slows down, by
// more than what is looked for. Knows nothing of what a step does; the numbers are the same either
// way.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <array>
#include <vector>

namespace tptrain::train {

enum class StepWay { issued, replayed };

class GraphTrial {
 public:
  static constexpr std::array kPhases = {StepWay::replayed, StepWay::issued, StepWay::replayed};
  static constexpr int kTimed = 5;  // steps of each phase; the one before them is not

  explicit GraphTrial(c10::Device device) : device_(device) {}

  /// Of the next step, where the caller can choose. Not when complete.
  StepWay next() const { return kPhases[phase_]; }
  /// A step has been given to the current stream.
  void done(StepWay way);
  bool is_complete() const { return phase_ == kPhases.size(); }
  /// When complete: fp32 [2] on the device, ms of a step issued, and replayed. Waits for the
  /// device.
  at::Tensor step_ms() const;

 private:
  c10::Device device_;
  size_t phase_ = 0;
  std::array<std::vector<c10::Event>, kPhases.size()> ends_;  // of steps one behind the other
};

}  // namespace tptrain::train
