// bfloat16, the upper half of an fp32 number, as bits: for loops that compute in fp32 and store
// bf16. One rounding for kernels, collectives and files, so that a number is the same whichever of
// them rounds it.
#pragma once

#include <bit>
#include <cstdint>

namespace tptrain {

__attribute__((always_inline)) inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

/// The nearest bf16 number, ties to even, in the upper half of the word; the lower half is 0. A NaN
/// keeps its sign and its upper payload; one that would have none left, and so be an infinity,
/// turns quiet. No branches: loops of it vectorise.
__attribute__((always_inline)) inline uint32_t bf16_word(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  const uint32_t upper = bits & 0xffff0000u;
  const uint32_t nan = upper | ((upper & 0x007f0000u) == 0 ? 0x00400000u : 0u);
  return (bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded;
}

__attribute__((always_inline)) inline uint16_t bf16_of(float value) {
  return static_cast<uint16_t>(bf16_word(value) >> 16);
}

}  // namespace tptrain
