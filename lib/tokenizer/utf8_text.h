// Whether bytes are UTF-8 (Unicode 15, table 3-7). Private to this folder.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tptrain::tokenizer {

/// Bytes of the character that `text` begins with; 0 where it begins with none, or is empty.
size_t utf8_length(std::string_view text);
/// Offset of the first byte that belongs to no character; npos where all do.
size_t first_invalid_utf8(std::string_view text);
/// Each longest part that can begin no character becomes one U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace tptrain::tokenizer
