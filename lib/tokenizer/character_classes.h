// Which class a character belongs to: as Oniguruma sees it, so that hand-written scanners and
// regular expressions agree, but by the Unicode version that the Hugging Face library has.
#pragma once

#include <cstdint>
#include <vector>

namespace tptrain::tokenizer {

enum CharacterClass : uint8_t {
  kLetter = 1,       // \p{L}
  kNumber = 2,       // \p{N}
  kSpace = 4,        // \s
  kNewline = 8,      // \r and \n
  kWord = 16,        // \w of Rust's regex: Oniguruma's and the joiners U+200C, U+200D
  kPunctuation = 32  // \p{P} and all of ASCII's punctuation
};

/// True for letters and numbers that the Oniguruma at hand may not know as such.
bool newer_than_oniguruma(uint32_t code_point);

/// The classes of every code point. Built at the first call (a few milliseconds), then shared.
const std::vector<uint8_t>& character_classes();

}  // namespace tptrain::tokenizer
