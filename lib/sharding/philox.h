// Philox4x32-10, the counter-based generator: a pure function of (key, counter), the same on every
// layout and device.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011,
// section 5.3.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/philox.h"

namespace tptrain::sharding {

/// 128 random bits for counter (4 words) under key (2 words).
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);
/// Key of a purpose: mixes a seed with a name ("init/model.norm.weight", "shuffle/epoch 3").
using tptrain::philox_key;
/// Standard normal number of element `index` under `key` (Box-Muller in double, not
/// rounded): elements 2i and 2i+1 share a draw.
double philox_normal(std::array<uint32_t, 2> key, uint64_t index);
/// Uniform in [0, 1) with 53 bits.
double philox_uniform(std::array<uint32_t, 2> key, uint64_t index);
/// Uniform integer in [0, n); bias below 2^-32 for n < 2^32 (64-bit multiply-shift).
uint64_t philox_below(std::array<uint32_t, 2> key, uint64_t index, uint64_t n);

}  // namespace tptrain::sharding
