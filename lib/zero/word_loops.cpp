#include "zero/word_loops.h"

#include <algorithm>

namespace tptrain::zero {
namespace {

constexpr uint32_t kExponent = 0x7f800000u;  // of fp32: all ones in inf and nan alone

template <typename Word>
uint64_t hash_of(const Word* words, int64_t numel) {
  uint64_t hash = 0;
  for (int64_t begin = 0; begin < numel; begin += kHashedAtOnce) {
    const int64_t end = std::min(numel, begin + kHashedAtOnce);
    uint64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      const auto bits = static_cast<uint64_t>(static_cast<int64_t>(words[i]));
      sum += (bits + 1) * hash_weight(static_cast<uint64_t>(i - begin));
    }
    hash += sum * hash_weight(static_cast<uint64_t>(begin / kHashedAtOnce));
  }
  return hash;
}

}  // namespace

bool words_are_finite(const uint32_t* words, int64_t count) {
  uint32_t bad = 0;  // no branch within: the compiler makes vectors of it
  for (int64_t i = 0; i < count; ++i) bad |= (words[i] & kExponent) == kExponent ? 1u : 0u;
  return bad == 0;
}

uint64_t hash_words(const int32_t* words, int64_t numel) { return hash_of(words, numel); }
uint64_t hash_words(const int16_t* words, int64_t numel) { return hash_of(words, numel); }

}  // namespace tptrain::zero
