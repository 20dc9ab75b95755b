#include "config/utf8_check.h"

#include <string_view>

#include "base/utf8.h"

namespace tptrain::config {
namespace {

/// Length of the character at `at`; 0 where there is none that YAML allows.
size_t character_length(const std::string& text, size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x20 && first != '\t' && first != '\n' && first != '\r') return 0;
  return utf8_length(std::string_view(text).substr(at));
}

}  // namespace

std::optional<BadByte> find_bad_byte(const std::string& text) {
  int line = 0;
  int column = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = character_length(text, at);
    if (length == 0) {
      return BadByte{.byte = static_cast<unsigned char>(text[at]), .line = line, .column = column};
    }
    column = text[at] == '\n' ? 0 : column + 1;
    line += text[at] == '\n' ? 1 : 0;
    at += length;
  }
  return std::nullopt;
}

}  // namespace tptrain::config
