// The tokenizer that needs no file: ids 0-255 are the bytes, 256 is end of text.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace tptrain::tokenizer {

std::unique_ptr<Tokenizer> make_byte_tokenizer();

/// Names and texts of files with which other programs give the same ids: a tokenizer.json (BPE
/// without merges; end of text is <|endoftext|>), and a tokenizer_config.json, which says that the
/// string of it in a text is text, as it is here.
std::vector<std::pair<std::string, std::string>> byte_tokenizer_files();

}  // namespace tptrain::tokenizer
