// JSON as Python writes it: its json module writes NaN, Infinity and -Infinity as bare words and
// reads them, JSON has none. A file is not refused for one in a key that nobody reads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tptrain {

/// A config.json has a few KiB; a larger file than this is none.
inline constexpr int64_t kMostConfigJsonBytes = int64_t{16} << 20;

/// A mark for the words that JSON has not, and as it is spelled in a written text: no model has
/// this character, which is nobody's, in a text.
inline constexpr const char* kBareNumberMark = "\xee\x80\x80";
inline constexpr const char* kBareNumberMarkEscaped = "\\ue000";

/// The text with such words, outside of strings, as strings: Infinity becomes "Infinity", with
/// `mark` before it. Whoever reads the key then meets a string where a number must be.
std::string quote_bare_numbers(std::string_view text, std::string_view mark = "");
/// The way back of a text that was parsed and written again: "<mark>Infinity" becomes Infinity.
/// `mark` as it is spelled in `text`; not empty.
std::string bare_numbers_again(std::string text, std::string_view mark);

}  // namespace tptrain
