// A document of a token file as a person reads it, with what is learned of it marked.
#pragma once

#include <cstdint>
#include <string>

#include "formats/token_file.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

/// "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Hello.<|im_end|>]]\n": on one line,
/// line feeds and other control characters written as JSON does, what is learned within the marks,
/// what is longer than about `most_bytes` cut off.
struct RowMarks {
  std::string begin = "[[";
  std::string end = "]]";
};
std::string show_row(const formats::TokenFile& file, int64_t document,
                     const tokenizer::Tokenizer& tokenizer, size_t most_bytes,
                     const RowMarks& marks = {});

}  // namespace tptrain::data
