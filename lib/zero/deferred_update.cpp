// Bookkeeping of blocks, and events between the current stream and the one beside it. In a captured
// step these are edges of the graph: by the end of a step everything has been waited for.
#include "zero/deferred_update.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>

namespace tptrain::zero {
namespace {

// Two more than the gathers of parameters are begun ahead: what they wait for has had the forward
// of two blocks. All at once would take the first blocks' memory bandwidth, and delay their own.
constexpr int kBlocksAhead = 4;

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

}  // namespace

DeferredUpdate::DeferredUpdate(std::unique_ptr<optim::Update> update, const Blocks& blocks,
                               at::Device device, const optim::UpdateStep& numbers)
    : update_(std::move(update)),
      numbers_(numbers),
      device_(device),
      blocks_(blocks.count),
      blocks_of_part_(blocks.of_part),
      states_((blocks.count + blocks.of_part - 1) / blocks.of_part, State::pending) {
  if (!device_.is_cuda() || !blocks.beside_others) return;
  beside_ = c10::impl::VirtualGuardImpl(device_.type()).getStreamFromGlobalPool(device_);
  reached_.emplace(device_.type());
  for (size_t p = 0; p < states_.size(); ++p) updated_.emplace_back(device_.type());
}

DeferredUpdate::~DeferredUpdate() {
  for (size_t b = 0; b < states_.size(); ++b) {
    if (states_[b] != State::in_flight) continue;
    try {
      updated_[b].block(current_stream(device_));
    } catch (const c10::Error& error) {
      // A device that takes no more calls; nothing will use the memory.
      TORCH_WARN("an update was left in flight: ", error.what_without_backtrace());
    }
  }
}

void DeferredUpdate::begin() {
  update_->begin(numbers_);
  assume_begun();
}

void DeferredUpdate::assume_begun() { std::fill(states_.begin(), states_.end(), State::pending); }

void DeferredUpdate::run_ahead(int block) {
  if (!beside_ || block + 1 >= blocks_) return;
  const int last = std::min(block + kBlocksAhead, blocks_ - 1) / blocks_of_part_;
  bool follows = false;  // the stream beside, what the current one has been given
  for (int next = (block + 1) / blocks_of_part_; next <= last; ++next) {
    if (states_[next] != State::pending) continue;
    if (!std::exchange(follows, true)) {
      reached_->record(current_stream(device_));
      reached_->block(*beside_);
    }
    const c10::StreamGuard guard(*beside_);
    update_->apply(next, numbers_);
    updated_[next].record(*beside_);
    states_[next] = State::in_flight;
  }
}

void DeferredUpdate::wait_for(int block) { wait_for_part(block / blocks_of_part_); }

void DeferredUpdate::wait_for_all() {
  for (int p = 0; p < static_cast<int>(states_.size()); ++p) wait_for_part(p);
}

void DeferredUpdate::wait_for_part(int part) {
  const State state = std::exchange(states_[part], State::done);
  if (state == State::in_flight) updated_[part].block(current_stream(device_));
  if (state != State::pending) return;
  // Parts may share memory that they work in.
  for (size_t p = 0; p < states_.size(); ++p) {
    if (states_[p] == State::in_flight) updated_[p].block(current_stream(device_));
  }
  update_->apply(part, numbers_);
}

}  // namespace tptrain::zero
