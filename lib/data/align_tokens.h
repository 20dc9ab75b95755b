// Which bytes of a text each of its tokens stands for. Works on any tokenizer by what its tokens
// spell: no token is taken to stand where the text says otherwise.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace tptrain::data {

struct TokenAt {
  size_t end = 0;     // the byte behind its last one
  bool known = true;  // false: lies somewhere before `end`, in text that the tokenizer changed
  bool special = false;
};

/// One for each of `ids`, which `tokenizer` made of `text` without adding any; the ends never fall.
/// Where the tokenizer writes the text otherwise (it composes characters, drops spaces beside a
/// special token), the tokens up to the next special token are not known, and end where that
/// begins.
std::vector<TokenAt> align_tokens(const tokenizer::Tokenizer& tokenizer, std::string_view text,
                                  std::span<const int32_t> ids);

}  // namespace tptrain::data
