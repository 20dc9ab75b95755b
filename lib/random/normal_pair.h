// philox_normal of philox.h, inline for those who fill whole tensors. For single numbers include
// philox.h.
#pragma once

#include <array>
#include <cstdint>

#include "random/box_muller.h"
#include "random/philox.h"

namespace tptrain::random {

inline constexpr uint32_t kPhiloxNormalStream = 0;  // third counter word of normal numbers

/// Elements 2 * pair_index and 2 * pair_index + 1.
inline NormalPair philox_normal_pair(std::array<uint32_t, 2> key, uint64_t pair_index) {
  const std::array<uint32_t, 4> words =
      philox_rounds({static_cast<uint32_t>(pair_index), static_cast<uint32_t>(pair_index >> 32),
                     kPhiloxNormalStream, 0},
                    key);
  return box_muller(static_cast<uint64_t>(words[0]) | static_cast<uint64_t>(words[1]) << 32,
                    static_cast<uint64_t>(words[2]) | static_cast<uint64_t>(words[3]) << 32);
}

}  // namespace tptrain::random
