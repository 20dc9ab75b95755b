// What the CPU loops share: the instruction-set clones, bf16 in memory, and an exp that the
// compiler can vectorise. No torch, no intrinsics.
#pragma once

#include <bit>
#include <cstdint>

#include "base/bf16.h"

// One clone of the function for each x86-64 level, chosen once when the program is loaded: the
// binary starts on every x86-64 and uses AVX2 or AVX-512 where they are. Helpers that such a
// function calls must be always_inline, else they stay at the lowest level.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TPTRAIN_CPU_LEVELS 1
#endif
// Under ThreadSanitizer what chooses the clone would run before the sanitizer's own memory is
// there.
#if defined(TPTRAIN_CPU_LEVELS) && !defined(__SANITIZE_THREAD__)
#define TPTRAIN_CPU_CLONES \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define TPTRAIN_CPU_CLONES
#endif
#define TPTRAIN_INLINE __attribute__((always_inline)) inline

namespace tptrain::kernels::cpu {

/// bfloat16 in memory: the upper half of an fp32 number. The loops compute in fp32, whatever they
/// read and write.
struct Bf16 {
  uint16_t bits;
};

TPTRAIN_INLINE float widen(float value) { return value; }
TPTRAIN_INLINE float widen(Bf16 value) { return bf16_to_float(value.bits); }

/// To what T holds: rounded for Bf16.
template <typename T>
TPTRAIN_INLINE T narrow(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    return {bf16_of(value)};
  }
}
/// widen(narrow<T>(value)), without the way through 16 bits, which keeps a loop from vectorising.
template <typename T>
TPTRAIN_INLINE float as_stored(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    return std::bit_cast<float>(bf16_word(value));
  }
}

/// exp(x) within 2 ulp, with inf, NaN and gradual underflow as std::exp has them.
/// Source: Cephes expf (Moshier): x = n ln 2 + r with ln 2 in two parts (Cody and Waite),
/// polynomial of degree 6 in r.
TPTRAIN_INLINE float exp_f32(float x) {
  x = x < -104.0f ? -104.0f
                  : x;  // exp(-104) rounds to 0, exp(89) to inf; NaN passes both comparisons
  x = x > 89.0f ? 89.0f : x;
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  float r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2^n in two factors, so that n = 128 and n = -149 have a representation. Unsigned: with NaN the
  // bits are arbitrary, NaN * them is NaN.
  const int32_t exponent =
      static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound));
  const int32_t half = exponent >> 1;
  const float low = std::bit_cast<float>((static_cast<uint32_t>(half) + 127u) << 23);
  const float high = std::bit_cast<float>(
      (static_cast<uint32_t>(exponent) - static_cast<uint32_t>(half) + 127u) << 23);
  return p * low * high;
}

/// Floats as integers of the same order, every NaN on top: their maximum vectorises and a NaN in
/// the row wins, as in at::amax.
TPTRAIN_INLINE int32_t ordered_key(float value) {
  const int32_t bits = std::bit_cast<int32_t>(value);
  const int32_t magnitude = bits & 0x7fffffff;
  const int32_t key = bits ^ ((bits >> 31) & 0x7fffffff);
  return magnitude > 0x7f800000 ? 0x7fffffff : key;
}

TPTRAIN_INLINE float value_of_key(int32_t key) {
  return std::bit_cast<float>(key ^ ((key >> 31) & 0x7fffffff));
}

}  // namespace tptrain::kernels::cpu
