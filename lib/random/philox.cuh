// philox_rounds of philox.h for device code, which nvcc cannot take from there.
#pragma once

#include <cstdint>

namespace tptrain::random {

__device__ inline uint4 philox_rounds(uint4 counter, uint32_t key0, uint32_t key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.x;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.z;
    counter = make_uint4(
        static_cast<uint32_t>(product1 >> 32) ^ counter.y ^ key0, static_cast<uint32_t>(product1),
        static_cast<uint32_t>(product0 >> 32) ^ counter.w ^ key1, static_cast<uint32_t>(product0));
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

}  // namespace tptrain::random
