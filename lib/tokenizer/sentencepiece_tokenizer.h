// A tokenizer.model of sentencepiece (Llama-1/2, TinyLlama, Mistral), through libsentencepiece: the
// ids that its library gives, plus what Hugging Face puts around it: special strings found in the
// text, begin-of-text, and tokens added behind the model's own.
// Not here: training, sampling, and models that cut by words or characters.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"

namespace tptrain::tokenizer {

/// `model` is the content of the file `name`. Where `config` names no token, the model's own
/// control symbols are special, and begin-of-text is put first where the model has one.
/// The file is not trusted: throws DataError where it is damaged, and where the model or `config`
/// asks for what is not built (named).
std::unique_ptr<Tokenizer> load_sentencepiece(std::string_view model, const std::string& name,
                                              const TokenizerConfig& config);

}  // namespace tptrain::tokenizer
