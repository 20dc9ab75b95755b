// A permutation of [0, size) chosen by a key, any element at once: no table, no state. Integer
// arithmetic only, so it is the same on every machine. Source: a Feistel network over the next even
// power of two (Luby, Rackoff, "How to construct pseudorandom permutations", 1988), walked along
// its cycle until it is inside (Black, Rogaway, "Ciphers with arbitrary finite domains", 2002); its
// round function is splitmix64's finalizer (Steele, Lea, Flood, "Fast splittable pseudorandom
// number generators", 2014, with Stafford's variant 13). For shuffling, not for secrets.
#pragma once

#include <array>
#include <cstdint>

namespace tptrain::data {

constexpr uint64_t mix64(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

class Permutation {
 public:
  /// size >= 1.
  Permutation(int64_t size, uint64_t seed, uint64_t stream) : size_(static_cast<uint64_t>(size)) {
    while (half_bits_ < 31 && (uint64_t{1} << (2 * half_bits_)) < size_) ++half_bits_;
    uint64_t key = mix64(mix64(seed) ^ stream);
    for (uint64_t& round_key : round_keys_) round_key = key = mix64(key);
  }

  /// Where `index` goes. The domain is less than four times the size, so the walk takes less than
  /// four rounds of the network on average.
  int64_t operator()(int64_t index) const {
    auto value = static_cast<uint64_t>(index);
    do {
      value = network(value);
    } while (value >= size_);
    return static_cast<int64_t>(value);
  }

 private:
  uint64_t network(uint64_t value) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t left = value >> half_bits_;
    uint64_t right = value & mask;
    for (const uint64_t key : round_keys_) {
      const uint64_t next = left ^ (mix64(right ^ key) & mask);
      left = right;
      right = next;
    }
    return (left << half_bits_) | right;
  }

  uint64_t size_;
  int half_bits_ = 1;
  // Four rounds suffice for large halves; small corpora have halves of a few bits, where more
  // rounds mix visibly better.
  std::array<uint64_t, 12> round_keys_{};
};

}  // namespace tptrain::data
