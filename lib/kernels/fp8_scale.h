// The scale of an FP8 matrix from its largest magnitude, the same bits on host and device. Sees no
// torch: nvcc compiles it too.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define TPTRAIN_HOST_DEVICE __host__ __device__
#else
#define TPTRAIN_HOST_DEVICE
#endif

namespace tptrain::kernels {

/// 1.75 * 2^this is the largest number of the type.
inline constexpr int kTopExponentE4m3 = 8;
inline constexpr int kTopExponentE5m2 = 15;

/// Exponent e of the largest power of two by which `amax` (its bits as fp32, not negative, finite)
/// may be multiplied to fit. Both 2^e and 2^-e are normal numbers of fp32.
TPTRAIN_HOST_DEVICE inline int fp8_exponent(uint32_t amax_bits, int top_exponent) {
  if (amax_bits == 0) return 0;
  const int exponent = static_cast<int>(amax_bits >> 23) - 127;
  const bool fits = (amax_bits & 0x7fffffu) <= 0x600000u;  // mantissas up to 1.75
  const int e = top_exponent - exponent - (fits ? 0 : 1);
  return e > 126 ? 126 : e;
}
TPTRAIN_HOST_DEVICE inline bool fp8_is_finite(uint32_t amax_bits) {
  return amax_bits < 0x7f800000u;
}
/// 2^exponent as the bits of an fp32.
TPTRAIN_HOST_DEVICE inline uint32_t power_of_two_bits(int exponent) {
  return static_cast<uint32_t>(exponent + 127) << 23;
}
inline constexpr uint32_t kNanBits = 0x7fc00000u;

// What a product is multiplied by for each operand of a type, since casting shrinks. The sum of
// squares of a tensor lies where x^3 p(x) is largest, and there its density p falls like x^-3: of
// the bf16 values that round to one FP8 value the smaller ones are more, so that q, what is stored,
// is on average a little less than x. Over the 128 values of a binade, weighted by x^-3:
//   sum(x q(x) x^-3) / sum(x x x^-3) = 1 / 1.00327 with 2 bits behind the point, 1 / 1.00095 with 3
// (measured on normal, Laplace and heavy-tailed values: 1.0030 to 1.0034, 1.0008 to 1.0010). Left
// alone it makes the gradient of an early layer smaller by that much for each product above it.
inline constexpr float kGivenBackE4m3 = 1.00095f;
inline constexpr float kGivenBackE5m2 = 1.00327f;

}  // namespace tptrain::kernels
