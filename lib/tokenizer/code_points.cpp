#include "tokenizer/code_points.h"

#include <cstring>

#include "base/error.h"
#include "base/text.h"
#include "base/utf8.h"

namespace tptrain::tokenizer {

namespace {

// first_invalid_utf8, eight bytes at a time where they are ASCII.
size_t first_invalid(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    uint64_t eight;
    if (pos + sizeof eight <= text.size()) {
      std::memcpy(&eight, text.data() + pos, sizeof eight);
      if ((eight & 0x8080808080808080u) == 0) {
        pos += sizeof eight;
        continue;
      }
    }
    const size_t length = utf8_length(text.substr(pos));
    if (length == 0) return pos;
    pos += length;
  }
  return std::string_view::npos;
}

}  // namespace

void require_utf8(std::string_view text) {
  const size_t bad = first_invalid(text);
  if (bad == std::string_view::npos) return;
  constexpr char kHex[] = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(text[bad]);
  throw DataError(problem(cat("text has the byte 0x", kHex[byte >> 4], kHex[byte & 15],
                              " at offset ", bad, ", where no UTF-8 character has it"))
                      .must("be UTF-8 for this tokenizer")
                      .remedy("Convert the text to UTF-8, or use the tokenizer \"bytes\"."));
}

std::string beginning_of(std::string_view text, size_t limit) {
  if (text.size() <= limit) return std::string(text);
  return std::string(text.substr(0, previous_character(text, limit + 1))) + "...";
}

void append_utf8(std::string& out, uint32_t c) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (c >> shift & 0x3F)); };
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    tail(0);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace tptrain::tokenizer
