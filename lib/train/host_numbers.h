// The numbers of a step on their way to the host: the copy begins when the device has them, and
// reading waits for that copy alone, not for what the device was given since.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "zero/step_numbers.h"

namespace tptrain::train {

class HostNumbers {
 public:
  /// Begins the copy, behind what the current stream has been given. `meanwhile` is called now and
  /// then by whoever waits for it, and may throw; empty: nothing.
  explicit HostNumbers(const zero::StepNumbers& numbers, std::function<void()> meanwhile = {});
  ~HostNumbers();
  HostNumbers(HostNumbers&&) noexcept;
  HostNumbers& operator=(HostNumbers&&) noexcept;

  // Each waits until the copy is done.
  double loss() const;
  double norm() const;
  bool finite() const;
  bool applied() const;

 private:
  double word(int64_t index) const;

  at::Tensor words_;  // fp32 [4] on the host
  struct Event;
  std::unique_ptr<Event> done_;  // null: the numbers were on the host
  std::function<void()> meanwhile_;
};

}  // namespace tptrain::train
