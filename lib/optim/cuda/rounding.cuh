// Stochastic rounding of a bf16 master in device code: the bits of ../stochastic_rounding.h, drawn
// one after the other from anywhere, or eight at once.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "optim/cuda/element_update.h"
#include "random/philox.cuh"

namespace tptrain::optim::cuda {

/// The 16 bits of elements `first`, `first` + 1, ... of a range: eight elements of the tensor share
/// a Philox call.
class RoundingBits {
 public:
  __device__ RoundingBits(const Rounding& site, int64_t first, uint32_t update)
      : site_(site), update_(update) {
    const int64_t local = site.begin + first;
    // A division of 64 bits costs more than the rest of an update: most slices are one block.
    const int64_t block = local < site.local_block ? 0 : local / site.local_block;
    left_ = site.local_block - (local - block * site.local_block);
    global_ = site.global_begin + block * site.global_block + local - block * site.local_block;
    draw();
  }
  __device__ uint32_t next() {
    const int place = static_cast<int>(global_ % 8);
    const uint32_t upper =
        place & 4 ? (place & 2 ? words_.w : words_.z) : (place & 2 ? words_.y : words_.x);
    const uint32_t bits = place & 1 ? upper >> 16 : upper & 0xffffu;
    ++global_;
    if (--left_ == 0) {
      global_ += site_.global_block - site_.local_block;
      left_ = site_.local_block;
      draw();
    } else if (place == 7) {
      draw();
    }
    return bits;
  }

 private:
  __device__ void draw() {
    const uint64_t group = static_cast<uint64_t>(global_) / 8;
    words_ = random::philox_rounds(
        make_uint4(static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), update_, 0),
        site_.key[0], site_.key[1]);
  }
  const Rounding& site_;
  uint32_t update_;
  int64_t global_;
  int64_t left_;  // elements of the block from here on
  uint4 words_;
};

/// Infinity and NaN stay.
__device__ inline __nv_bfloat16 round_stochastically(float value, uint32_t random) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return __float2bfloat16_rn(value);
  return __ushort_as_bfloat16(static_cast<unsigned short>((bits + random) >> 16));
}

/// Those of eight neighbours that share a Philox call: 16 each, the first in the low half of x.
__device__ inline uint4 bits_of_eight(const Rounding& site, int64_t first, uint32_t update) {
  const auto local = static_cast<uint64_t>(site.begin + first);
  const auto local_block = static_cast<uint64_t>(site.local_block);
  uint64_t block = 0;
  if (local >= local_block) {
    block = ((local | local_block) >> 32) == 0
                ? static_cast<uint32_t>(local) / static_cast<uint32_t>(local_block)
                : local / local_block;
  }
  const uint64_t global = static_cast<uint64_t>(site.global_begin) + local +
                          block * static_cast<uint64_t>(site.global_block - site.local_block);
  const uint64_t group = global / 8;
  return random::philox_rounds(
      make_uint4(static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), update, 0),
      site.key[0], site.key[1]);
}

}  // namespace tptrain::optim::cuda
