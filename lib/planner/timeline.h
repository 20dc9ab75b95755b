// Memory over time without memory: buffers that are only a number of bytes, held and freed as
// tensors are, and the most that was alive at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

namespace tptrain::planner {

/// Shared like a tensor's storage: alive until its last owner is gone or reset.
using Buffer = std::shared_ptr<const int64_t>;

class Timeline {
 public:
  Timeline() = default;
  Timeline(const Timeline&) = delete;  // buffers know its address

  Buffer make(int64_t bytes) {
    live_ += bytes;
    peak_ = std::max(peak_, live_);
    return {new int64_t(bytes), [this](const int64_t* size) {
              live_ -= *size;
              delete size;
            }};
  }
  /// Alive for a moment only, all together.
  template <typename... Bytes>
  void touch(Bytes... bytes) {
    peak_ = std::max(peak_, live_ + (int64_t{0} + ... + bytes));
  }

  int64_t live() const { return live_; }
  int64_t peak() const { return peak_; }

 private:
  int64_t live_ = 0;
  int64_t peak_ = 0;
};

}  // namespace tptrain::planner
