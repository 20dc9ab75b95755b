#include "train/graph_trial.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

namespace tptrain::train {
namespace {

class DeviceMark final : public StepMark {
 public:
  explicit DeviceMark(c10::Device device)
      : event_(device.type(), c10::EventFlag::BACKEND_DEFAULT) {  // with a time
    event_.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  }
  float ms_since(StepMark& earlier) override {
    event_.synchronize();
    return static_cast<float>(static_cast<DeviceMark&>(earlier).event_.elapsedTime(event_));
  }

 private:
  c10::Event event_;
};

float median_ms(const std::vector<std::unique_ptr<StepMark>>& ends) {
  std::vector<float> steps;
  for (size_t i = 1; i < ends.size(); ++i) steps.push_back(ends[i]->ms_since(*ends[i - 1]));
  const auto middle = steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2);
  std::nth_element(steps.begin(), middle, steps.end());
  return *middle;
}

}  // namespace

std::unique_ptr<StepMark> mark_on(c10::Device device) {
  return std::make_unique<DeviceMark>(device);
}

// A step that had to go another way (its sizes are new) is none of the phase, and cuts it short.
void GraphTrial::done(StepWay way) {
  auto& ends = ends_[phase_];
  if (way != next()) {
    ends.clear();
    return;
  }
  ends.push_back(mark_());
  if (ends.size() == kTimed + 1) ++phase_;
}

GraphTrial::StepMs GraphTrial::step_ms() {
  return {.issued = median_ms(ends_[1]),
          .replayed = (median_ms(ends_[0]) + median_ms(ends_[2])) / 2};
}

}  // namespace tptrain::train
