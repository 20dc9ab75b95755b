// Philox4x32-10 and the numbers drawn from it. No state anywhere: a number is a function of (key,
// index).
#include "sharding/philox.h"

#include <cmath>

#include "sharding/philox_round.h"

namespace tptrain::sharding {
namespace {

// The third counter word tells the kinds of numbers apart, so that one key may serve them all.
enum : uint32_t { kNormal = kPhiloxNormalStream, kUniform = 1, kBelow = 2 };

uint64_t draw_64(std::array<uint32_t, 2> key, uint64_t index, uint32_t stream) {
  const std::array<uint32_t, 4> words = philox_rounds(
      {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), stream, 0}, key);
  return static_cast<uint64_t>(words[0]) | static_cast<uint64_t>(words[1]) << 32;
}

}  // namespace

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  return philox_rounds(counter, key);
}

double philox_normal(std::array<uint32_t, 2> key, uint64_t index) {
  const NormalPair pair = philox_normal_pair(key, index / 2);
  return index % 2 == 0 ? pair.even : pair.odd;
}

double philox_uniform(std::array<uint32_t, 2> key, uint64_t index) {
  return static_cast<double>(draw_64(key, index, kUniform) >> 11) * 0x1p-53;
}

uint64_t philox_below(std::array<uint32_t, 2> key, uint64_t index, uint64_t n) {
  const unsigned __int128 product = static_cast<unsigned __int128>(draw_64(key, index, kBelow)) *
                                    static_cast<unsigned __int128>(n);
  return static_cast<uint64_t>(product >> 64);
}

}  // namespace tptrain::sharding
