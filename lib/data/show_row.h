// The first document of a token file as a person reads it, with what is learned of it marked.
#pragma once

#include <string>

#include "formats/token_file.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

/// "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Hello.<|im_end|>]]\n": on one line,
/// line feeds and other control characters written as JSON does, what is learned in [[ ]], what is
/// longer than about `most_bytes` cut off.
std::string show_first_row(const formats::TokenFile& file, const tokenizer::Tokenizer& tokenizer,
                           size_t most_bytes);

}  // namespace tptrain::data
