// Walking text that is known to be UTF-8, character by character. Whether it is, says base/utf8.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tptrain::tokenizer {

/// Throws DataError naming the first byte where `text` is not UTF-8.
void require_utf8(std::string_view text);

/// The code point at text[pos]; moves pos behind it. `text` must be valid.
inline uint32_t next_code_point(std::string_view text, size_t& pos) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + pos;
  if (p[0] < 0x80) return ++pos, p[0];
  if (p[0] < 0xE0) return pos += 2, (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
  if (p[0] < 0xF0) return pos += 3, (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
  return pos += 4,
         (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

/// The start of the character that ends before `pos` > 0. `text` must be valid.
inline size_t previous_character(std::string_view text, size_t pos) {
  do {
    --pos;
  } while (pos > 0 && (static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

/// The start of `text` for a message: whole characters, at most `limit` bytes, "..." behind them
/// where more follows. `text` must be valid.
std::string beginning_of(std::string_view text, size_t limit);

}  // namespace tptrain::tokenizer
