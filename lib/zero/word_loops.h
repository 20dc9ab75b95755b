// The loops on the CPU over every word of a gradient or a parameter. They see no torch: compiled by
// themselves for speed, without what its headers cost.
#pragma once

#include <cstdint>

namespace tptrain::zero {

/// Whether none of `count` fp32 words is infinite or not a number.
bool words_are_finite(const uint32_t* words, int64_t count);

constexpr int64_t kHashedAtOnce = int64_t{1} << 20;
// 2^64 divided by the golden ratio, and the first multiplier of splitmix64.
constexpr uint64_t kHashStep = 0x9E3779B97F4A7C15u, kHashMix = 0xBF58476D1CE4E5B9u;

/// The weight of an index. Squaring breaks the arithmetic progression: with weights i * kHashStep,
/// pairs of changes at i, i + 1 and j, j + 1 would cancel.
constexpr uint64_t hash_weight(uint64_t index) {
  const uint64_t z = (index + 1) * kHashStep;
  return (z * (z + kHashMix)) | 1u;
}

/// value_hash (value_hash.h) of the bits of `numel` elements.
uint64_t hash_words(const int32_t* words, int64_t numel);
uint64_t hash_words(const int16_t* words, int64_t numel);

}  // namespace tptrain::zero
