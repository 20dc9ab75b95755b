#include "train/graph_trial.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>

namespace tptrain::train {
namespace {

float median_ms(const std::vector<c10::Event>& ends) {
  ends.back().synchronize();
  std::vector<float> steps;
  for (size_t i = 1; i < ends.size(); ++i)
    steps.push_back(static_cast<float>(ends[i - 1].elapsedTime(ends[i])));
  const auto middle = steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2);
  std::nth_element(steps.begin(), middle, steps.end());
  return *middle;
}

}  // namespace

// A step that had to go another way (its sizes are new) is none of the phase, and cuts it short.
void GraphTrial::done(StepWay way) {
  std::vector<c10::Event>& ends = ends_[phase_];
  if (way != next()) {
    ends.clear();
    return;
  }
  c10::Event end(device_.type(), c10::EventFlag::BACKEND_DEFAULT);  // with a time
  end.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  ends.push_back(std::move(end));
  if (ends.size() == kTimed + 1) ++phase_;
}

at::Tensor GraphTrial::step_ms() const {
  const float issued = median_ms(ends_[1]);
  const float replayed = (median_ms(ends_[0]) + median_ms(ends_[2])) / 2;
  return at::tensor({issued, replayed}).to(device_);
}

}  // namespace tptrain::train
