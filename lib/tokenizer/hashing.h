// A fast hash with a seed of the process, so that no file can be made whose entries all collide.
// Never stored: equal inputs hash alike within one process only.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/random_id.h"

namespace tptrain::tokenizer {

inline uint64_t hash_seed() {
  static const uint64_t seed = random_word();
  return seed;
}

inline uint64_t mix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t hash_pair(uint64_t pair, uint64_t seed) {
  return mix(pair ^ seed, 0x9E3779B97F4A7C15u ^ (seed << 1));
}

inline uint64_t hash_bytes(std::string_view bytes, uint64_t seed) {
  const char* p = bytes.data();
  size_t left = bytes.size();
  const auto eight = [](const char* at) {
    uint64_t value;
    std::memcpy(&value, at, 8);
    return value;
  };
  const auto four = [](const char* at) -> uint64_t {
    uint32_t value;
    std::memcpy(&value, at, 4);
    return value;
  };
  uint64_t hash = seed ^ (left * 0xA0761D6478BD642Fu);
  for (; left > 16; p += 16, left -= 16) {
    hash = mix(eight(p) ^ 0xE7037ED1A0B428DBu, eight(p + 8) ^ hash);
  }
  uint64_t a = 0;
  uint64_t b = 0;
  if (left >= 8) {
    a = eight(p);
    b = eight(p + left - 8);
  } else if (left >= 4) {
    a = four(p);
    b = four(p + left - 4);
  } else if (left > 0) {
    const auto byte = [&](size_t i) { return static_cast<uint64_t>(static_cast<uint8_t>(p[i])); };
    a = byte(0) << 16 | byte(left / 2) << 8 | byte(left - 1);
  }
  return mix(mix(a ^ 0x8EBC6AF09C88C6E3u, b ^ hash), seed ^ 0x589965CC75374CC3u);
}

}  // namespace tptrain::tokenizer
