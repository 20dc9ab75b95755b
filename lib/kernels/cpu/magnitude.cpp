#include "kernels/cpu/magnitude.h"

#include <algorithm>
#include <bit>

namespace tptrain::kernels::cpu {

TPTRAIN_CPU_CLONES
uint32_t largest_magnitude(const float* x, int64_t count) {
  uint32_t most = 0;
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < count; ++i)
    most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  // Rounding keeps the order: the largest rounded is the rounded largest.
  return uint32_t{bf16_of(std::bit_cast<float>(most))} << 16;
}

TPTRAIN_CPU_CLONES
uint32_t largest_magnitude(const Bf16* x, int64_t count) {
  uint32_t most = 0;
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < count; ++i)
    most = std::max(most, static_cast<uint32_t>(x[i].bits & 0x7fffu));
  return most << 16;
}

}  // namespace tptrain::kernels::cpu
