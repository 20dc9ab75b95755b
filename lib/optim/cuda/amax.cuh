// UpdateRange::amax in device code: the largest magnitude of what the blocks of a range write.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>

#include "optim/cuda/element_update.h"

namespace tptrain::optim::cuda {

/// The largest magnitudes that a thread has written, of either place in a word of two bf16. Without
/// the sign their order is that of their bits, NaN above infinity.
class Amax {
 public:
  /// For take() and most() alone.
  __device__ Amax() {}
  /// What the range's other blocks have found so far: few find a larger one than the first, and
  /// read on the way to the elements it costs no time. One that is out of date costs an atomic.
  __device__ explicit Amax(const Range& range)
      : known_(range.amax == nullptr ? kNobodyAsks : __ldcg(range.amax)) {}
  template <typename T>
  __device__ void take(const T& bf16) {
    uint32_t words[sizeof(T) / 4];
    memcpy(words, &bf16, sizeof(T));
#pragma unroll
    for (const uint32_t word : words) most_ = __vmaxs2(most_, word & 0x7fff7fffu);
  }
  /// What another has taken, as most() gave it.
  __device__ void take_most(uint32_t most) { most_ = __vmaxs2(most_, most); }
  __device__ uint32_t most() const { return most_; }
  /// Every thread of the block comes here. `range`: the same.
  __device__ void store_to(const Range& range) const {
    const uint32_t of_warp = __reduce_max_sync(~0u, max(most_ << 16, most_ & 0xffff0000u));
    if (threadIdx.x % 32 == 0 && of_warp > known_) atomicMax(range.amax, of_warp);
  }

 private:
  static constexpr uint32_t kNobodyAsks = ~0u;  // nothing is larger
  uint32_t known_ = kNobodyAsks;
  uint32_t most_ = 0;
};

}  // namespace tptrain::optim::cuda
