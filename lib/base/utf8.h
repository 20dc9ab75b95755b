// UTF-8, once for all who look at bytes (Unicode 15, table 3-7: no overlong forms, no surrogates,
// nothing beyond U+10FFFF).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tptrain {

struct Utf8Begin {
  size_t length = 0;   // bytes of the whole character; 0: no character begins so
  size_t present = 0;  // of those, the bytes that are there and fit; at least 1
};
/// What `text`, which is not empty, begins with.
Utf8Begin utf8_begin(std::string_view text);
/// Bytes of the character that `text` begins with; 0 where it begins with none, or is empty.
size_t utf8_length(std::string_view text);
/// Offset of the first byte that belongs to no character; npos where all do.
size_t first_invalid_utf8(std::string_view text);
/// Each longest part that can begin no character becomes one U+FFFD.
std::string replace_invalid_utf8(std::string_view text);
/// The start of `text`, at most `limit` bytes, that cuts no character in two.
std::string_view utf8_prefix(std::string_view text, size_t limit);
void append_utf8(std::string& out, uint32_t code_point);

}  // namespace tptrain
