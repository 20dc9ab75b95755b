#include "zero/state_snapshot.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "base/work.h"

namespace tptrain::zero {
namespace {

using sharding::StateDict;
using sharding::StatePiece;

constexpr int64_t kAlignment = 64;
constexpr size_t kCopiedAtOnce = size_t{4} << 20;
constexpr int kMostCopying = 4;  // threads: as many as fill the memory's width

bool is_saved(const StatePiece& piece) { return piece.save && piece.begin < piece.end; }

int64_t room_for(const StatePiece& piece) {
  const auto bytes = static_cast<int64_t>(piece.data.nbytes());
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

std::vector<at::Tensor> saved_tensors(const StateDict& state) {
  std::vector<at::Tensor> tensors;
  for (const StatePiece& piece : state.pieces) {
    if (is_saved(piece)) tensors.push_back(piece.data);
  }
  return tensors;
}

}  // namespace

// Copies on threads of its own, and on that of whoever waits for it.
class StateSnapshot::HostCopy {
 public:
  HostCopy(const std::vector<at::Tensor>& from, const StateDict& to, int threads)
      : from_(from), parts_(parts_of(from, to)) {
    job_.emplace(Priority::usual,
                 [this, threads] { in_parallel(threads, threads, [this](int64_t) { copy(); }); });
  }
  bool is_done() const { return job_->is_done(); }
  void finish() {
    copy();
    job_->get();
  }

 private:
  struct Part {
    const std::byte* source;
    std::byte* target;
    size_t bytes;
  };

  static std::vector<Part> parts_of(const std::vector<at::Tensor>& from, const StateDict& to) {
    std::vector<Part> parts;
    for (size_t i = 0; i < from.size(); ++i) {
      const auto* source = static_cast<const std::byte*>(from[i].const_data_ptr());
      auto* target = static_cast<std::byte*>(to.pieces[i].data.mutable_data_ptr());
      for (size_t done = 0; done < from[i].nbytes(); done += kCopiedAtOnce)
        parts.push_back(
            {source + done, target + done, std::min(kCopiedAtOnce, from[i].nbytes() - done)});
    }
    return parts;
  }

  void copy() {
    for (size_t i = next_++; i < parts_.size(); i = next_++) {
      std::memcpy(parts_[i].target, parts_[i].source, parts_[i].bytes);
      interruption_point();
    }
  }

  std::vector<at::Tensor> from_;  // held until all is copied
  std::vector<Part> parts_;
  std::atomic<size_t> next_ = 0;
  std::optional<BackgroundJob> job_;  // goes first
};

int64_t StateSnapshot::bytes_of(const StateDict& state) {
  int64_t bytes = 0;
  for (const StatePiece& piece : state.pieces) {
    if (is_saved(piece)) bytes += room_for(piece);
  }
  return bytes;
}

StateSnapshot::StateSnapshot(const StateDict& live, c10::Device device)
    : device_(device), memory_(bytes_of(live), device) {
  std::byte* at = memory_.data();
  for (const StatePiece& piece : live.pieces) {
    if (!is_saved(piece)) continue;
    StatePiece copy = piece;
    copy.data =
        at::from_blob(at, piece.data.sizes(), at::TensorOptions().dtype(piece.data.scalar_type()));
    copy_.pieces.push_back(std::move(copy));
    at += room_for(piece);
  }
  if (!device_.is_cuda()) {
    threads_ = std::clamp(at::get_num_threads(), 1, kMostCopying);
    taking_pages_ =
        std::make_unique<BackgroundJob>(Priority::low, [this] { memory_.take_pages(); });
    return;
  }
  beside_ = c10::impl::VirtualGuardImpl(device_.type()).getStreamFromGlobalPool(device_);
  reached_.emplace(device_.type());
  copied_.emplace(device_.type());
}

StateSnapshot::~StateSnapshot() {
  if (complete_ || !device_.is_cuda()) return;
  try {
    copied_->synchronize();
  } catch (const c10::Error& error) {
    // A device that takes no more calls writes nothing either.
    TORCH_WARN("a copy of the state was left under way: ", error.what_without_backtrace());
  }
}

void StateSnapshot::begin(const StateDict& live) {
  if (!complete_) throw InternalError(problem("a copy of the state was begun in another"));
  const std::vector<at::Tensor> from = saved_tensors(live);
  bool same = from.size() == copy_.pieces.size();
  for (size_t i = 0; same && i < from.size(); ++i)
    same = from[i].nbytes() == copy_.pieces[i].data.nbytes() && from[i].is_contiguous();
  if (!same) throw InternalError(problem("the state to copy is not that of the memory's size"));
  complete_ = false;
  if (device_.is_cuda()) {
    copy_on_stream(from);
  } else {
    if (taking_pages_) std::exchange(taking_pages_, nullptr)->get();
    copying_ = std::make_unique<HostCopy>(from, copy_, threads_);
  }
}

void StateSnapshot::copy_on_stream(const std::vector<at::Tensor>& from) {
  const at::NoGradGuard no_grad;
  reached_->record(current_stream(device_));
  reached_->block(*beside_);
  const c10::StreamGuard guard(*beside_);
  for (size_t i = 0; i < from.size(); ++i)
    copy_.pieces[i].data.copy_(from[i], /*non_blocking=*/true);
  copied_->record(*beside_);
}

void StateSnapshot::let_state_change() {
  if (complete_) return;
  if (device_.is_cuda()) {
    copied_->block(current_stream(device_));
  } else {
    wait();
  }
}

bool StateSnapshot::is_complete() {
  if (complete_) return true;
  if (device_.is_cuda() ? !copied_->query() : !copying_->is_done()) return false;
  wait();
  return true;
}

void StateSnapshot::wait() {
  if (complete_) return;
  if (device_.is_cuda()) {
    copied_->synchronize();
  } else {
    copying_->finish();
    copying_.reset();
  }
  complete_ = true;
}

}  // namespace tptrain::zero
