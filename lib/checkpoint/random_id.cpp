#include "checkpoint/random_id.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>

namespace tptrain::checkpoint {

std::string random_id() {
  std::random_device device;  // getrandom(2) or /dev/urandom; throws where there is neither
  constexpr std::array<char, 17> kDigits{"0123456789abcdef"};
  std::string id;
  for (int word = 0; word < 4; ++word) {
    const uint32_t bits = device();
    for (int shift = 0; shift < 32; shift += 4) id += kDigits[(bits >> shift) & 15];
  }
  return id;
}

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace tptrain::checkpoint
