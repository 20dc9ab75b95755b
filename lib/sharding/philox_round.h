// The inner loops of philox.h, inline for those who fill whole tensors. Not the interface: include
// philox.h for single numbers.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "base/philox.h"

namespace tptrain::sharding {

inline constexpr uint32_t kPhiloxNormalStream = 0;  // third counter word of normal numbers

struct NormalPair {
  double even = 0.0;  // element 2 * pair_index
  double odd = 0.0;   // element 2 * pair_index + 1
};

/// Box-Muller in double. log, sin and cos are the C library's: two versions of it may differ in the
/// last bit of a double, which after rounding to fp32 changes about one element in 10^8; ranks of
/// one run share one library, so layouts agree bitwise.
inline NormalPair philox_normal_pair(std::array<uint32_t, 2> key, uint64_t pair_index) {
  const std::array<uint32_t, 4> words =
      philox_rounds({static_cast<uint32_t>(pair_index), static_cast<uint32_t>(pair_index >> 32),
                     kPhiloxNormalStream, 0},
                    key);
  const uint64_t bits0 = static_cast<uint64_t>(words[0]) | static_cast<uint64_t>(words[1]) << 32;
  const uint64_t bits1 = static_cast<uint64_t>(words[2]) | static_cast<uint64_t>(words[3]) << 32;
  // (0, 1]: the logarithm of 0 must not occur.
  const double u0 = static_cast<double>((bits0 >> 11) + 1) * 0x1p-53;
  const double angle =
      static_cast<double>(bits1 >> 11) * (0x1p-53 * 6.283185307179586476925286766559);
  const double radius = std::sqrt(-2.0 * std::log(u0));
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace tptrain::sharding
