// Philox for many counters at once, in a form that the compiler vectorises: one array a word. The
// same numbers as philox_rounds of random/philox.h.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

struct PhiloxBlock {
  static constexpr int64_t kCounters = 64;
  uint32_t word[4][kCounters];  // the counters before, the random numbers after
};

TPTRAIN_INLINE void philox_block(PhiloxBlock& block, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (uint32_t round = 0; round < 10; ++round) {
    const uint32_t key0 = key[0] + round * kWeyl0;
    const uint32_t key1 = key[1] + round * kWeyl1;
#pragma omp simd
    for (int64_t i = 0; i < PhiloxBlock::kCounters; ++i) {
      const uint64_t product0 = kMultiplier0 * block.word[0][i];
      const uint64_t product1 = kMultiplier1 * block.word[2][i];
      block.word[0][i] = static_cast<uint32_t>(product1 >> 32) ^ block.word[1][i] ^ key0;
      block.word[1][i] = static_cast<uint32_t>(product1);
      block.word[2][i] = static_cast<uint32_t>(product0 >> 32) ^ block.word[3][i] ^ key1;
      block.word[3][i] = static_cast<uint32_t>(product0);
    }
  }
}

}  // namespace tptrain::kernels::cpu
