// The sections of a tokenizer.json but its model, one function each. What they name and this
// version does not know is refused by name. Private to this folder.
#pragma once

#include <string>
#include <vector>

#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/tokenizer_json.h"

namespace tptrain::tokenizer {

void read_normalizer(const JsonObject& section, Normalizer& normalizer);
void read_pre_tokenizer(const JsonObject& section, PreTokenizer& pre_tokenizer);
void read_decoder(const JsonObject& section, TokenDecoder& decoder);
/// Sets `before` and `behind`.
void read_post_processor(const JsonObject& section, BpeParts& parts);

}  // namespace tptrain::tokenizer
