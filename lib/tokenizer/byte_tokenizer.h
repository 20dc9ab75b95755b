// The tokenizer that needs no file: ids 0-255 are the bytes, 256 is end of text.
#pragma once

#include <memory>

#include "tokenizer/tokenizer.h"

namespace tptrain::tokenizer {

std::unique_ptr<Tokenizer> make_byte_tokenizer();

}  // namespace tptrain::tokenizer
