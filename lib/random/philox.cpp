// No state anywhere: a number is a function of (key, index).
#include "random/philox.h"

#include "random/normal_pair.h"

namespace tptrain::random {
namespace {

// The third counter word tells the kinds of numbers apart, so that one key may serve them all.
enum : uint32_t { kNormal = kPhiloxNormalStream, kUniform = 1, kBelow = 2 };

uint64_t draw_64(std::array<uint32_t, 2> key, uint64_t index, uint32_t stream) {
  const std::array<uint32_t, 4> words = philox_rounds(
      {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), stream, 0}, key);
  return static_cast<uint64_t>(words[0]) | static_cast<uint64_t>(words[1]) << 32;
}

// Finaliser of SplitMix64: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators",
// OOPSLA 2014. Neighbouring seeds (1, 2, 3 are what users write) give unrelated keys.
uint64_t splitmix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::array<uint32_t, 2> philox_key(uint64_t seed, std::string_view purpose) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a, 64 bits
  for (const char c : purpose) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  const uint64_t mixed = splitmix64(splitmix64(seed) ^ hash);
  return {static_cast<uint32_t>(mixed), static_cast<uint32_t>(mixed >> 32)};
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

}  // namespace tptrain::random
