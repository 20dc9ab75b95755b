// Philox4x32-10: counter-based random numbers without any state. A number is a function of (key,
// counter), so whoever knows the global index of an element draws the same number for it on every
// layout and device. Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2,
// 3", SC 2011, section 5.3.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace tptrain::random {

/// Key of a purpose: mixes a seed with a name ("init/model.norm.weight", "shuffle/epoch 3").
std::array<uint32_t, 2> philox_key(uint64_t seed, std::string_view purpose);

/// 128 random bits for counter (4 words) under key (2 words).
inline std::array<uint32_t, 4> philox_rounds(std::array<uint32_t, 4> counter,
                                             std::array<uint32_t, 2> key) {
  // Multipliers and Weyl constants: Salmon et al. 2011, section 5.3 and Random123's philox.h.
  constexpr uint64_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

/// Standard normal number of element `index` under `key` (Box-Muller in double, not
/// rounded): elements 2i and 2i+1 share a draw.
double philox_normal(std::array<uint32_t, 2> key, uint64_t index);
/// Uniform in [0, 1) with 53 bits.
double philox_uniform(std::array<uint32_t, 2> key, uint64_t index);
/// Uniform integer in [0, n); bias below 2^-32 for n < 2^32 (64-bit multiply-shift).
uint64_t philox_below(std::array<uint32_t, 2> key, uint64_t index, uint64_t n);

}  // namespace tptrain::random
