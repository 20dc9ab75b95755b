#include "train/host_numbers.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <thread>
#include <utility>

namespace tptrain::train {

namespace {

constexpr std::chrono::microseconds kBetweenLooks(50);
constexpr std::chrono::milliseconds kBetweenCalls(100);

}  // namespace

struct HostNumbers::Event {
  explicit Event(c10::Device device) : event(device.type()) {
    event.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  }
  c10::Event event;
};

HostNumbers::HostNumbers(const zero::StepNumbers& numbers, std::function<void()> meanwhile)
    : meanwhile_(std::move(meanwhile)) {
  const at::Tensor words =
      at::stack({numbers.losses[0], numbers.norm, numbers.finite.to(at::kFloat),
                 numbers.applied.to(at::kFloat)});
  if (words.is_cpu()) {
    words_ = words;
    return;
  }
  // Page-locked: from other memory the copy would be the host's own, and wait.
  words_ = at::empty(words.sizes(), at::TensorOptions().dtype(at::kFloat).pinned_memory(true));
  words_.copy_(words, /*non_blocking=*/true);
  done_ = std::make_unique<Event>(words.device());
}

HostNumbers::~HostNumbers() = default;
HostNumbers::HostNumbers(HostNumbers&&) noexcept = default;
HostNumbers& HostNumbers::operator=(HostNumbers&&) noexcept = default;

double HostNumbers::word(int64_t index) const {
  if (done_ && meanwhile_) {
    for (auto next = std::chrono::steady_clock::now(); !done_->event.query();) {
      if (const auto now = std::chrono::steady_clock::now(); now >= next) {
        meanwhile_();
        next = now + kBetweenCalls;
      }
      std::this_thread::sleep_for(kBetweenLooks);
    }
  }
  if (done_) done_->event.synchronize();
  return words_.const_data_ptr<float>()[index];
}

double HostNumbers::loss() const { return word(0); }
double HostNumbers::norm() const { return word(1); }
bool HostNumbers::finite() const { return word(2) != 0; }
bool HostNumbers::applied() const { return word(3) != 0; }

}  // namespace tptrain::train
