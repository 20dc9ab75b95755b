#include "base/hex.h"

#include <algorithm>

namespace tptrain {

namespace {

char nibble(char digit) { return static_cast<char>(digit <= '9' ? digit - '0' : digit - 'a' + 10); }

}  // namespace

std::string to_hex(uint64_t value, size_t digits, HexCase letters) {
  const char* const all = letters == HexCase::lower ? "0123456789abcdef" : "0123456789ABCDEF";
  std::string text(digits, '0');
  for (size_t at = digits; at-- > 0; value >>= 4) text[at] = all[value & 15];
  return text;
}

std::string to_hex(std::string_view bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char byte : bytes) text += to_hex(static_cast<unsigned char>(byte), 2);
  return text;
}

std::string bytes_of_hex(std::string_view hex) {
  std::string bytes;
  bytes.reserve(hex.size() / 2);
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(nibble(hex[i]) << 4 | nibble(hex[i + 1]));
  return bytes;
}

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace tptrain
