#include "base/printable.h"

#include <cstdint>
#include <cstdio>

#include "base/utf8.h"

namespace tptrain {

namespace {

struct Character {
  uint32_t code_point = 0;
  size_t bytes = 0;  // 0: what is here is no UTF-8
};

Character character_at(std::string_view text, size_t at) {
  const size_t bytes = utf8_length(text.substr(at));
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  if (bytes == 0) return {};
  if (bytes == 1) return {byte(0), 1};
  uint32_t code_point = byte(0) & (0xffU >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) code_point = (code_point << 6) | (byte(i) & 0x3fU);
  return {code_point, bytes};
}

bool changes_the_terminal(uint32_t c) {
  const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);
  const bool direction = c == 0x200e || c == 0x200f || c == 0x061c ||
                         (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
  return control || direction || c == 0x2028 || c == 0x2029;
}

std::string escaped(std::string_view text, std::string_view kept) {
  std::string out;
  out.reserve(text.size());
  const auto escape = [&](const char* format, uint32_t value) {
    char buffer[16];
    out.append(buffer, static_cast<size_t>(std::snprintf(buffer, sizeof buffer, format, value)));
  };
  for (size_t at = 0; at < text.size();) {
    const auto [code_point, bytes] = character_at(text, at);
    if (bytes == 0) {
      escape("\\x%02x", static_cast<unsigned char>(text[at++]));
      continue;
    }
    if (!changes_the_terminal(code_point) || kept.find(text[at]) != kept.npos) {
      out.append(text.substr(at, bytes));
    } else if (code_point == '\n') {
      out += "\\n";
    } else {
      escape(code_point < 0x80 ? "\\x%02x" : "\\u%04x", code_point);
    }
    at += bytes;
  }
  return out;
}

}  // namespace

std::string printable(std::string_view text) { return escaped(text, "\n\t"); }

std::string printable_line(std::string_view text) { return escaped(text, ""); }

}  // namespace tptrain
