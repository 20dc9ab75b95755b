// What target_modules of an adapter_config.json means for one model.
#pragma once

#include <string>
#include <vector>

#include "adapters/peft_config.h"
#include "model/decoder_config.h"

namespace tptrain::adapters {

struct TargetWords {
  std::vector<std::string> words;  // of the run file's adapter.targets; {"all-linear"}: all
  std::vector<std::string> wrong;  // a line each: names that fit nothing, modules beside their word
};

/// PEFT's rule: a module is meant where its path is a name or ends with one behind a dot, or where
/// the pattern fits the whole of it. An adapter of some layers alone is wrong. Throws DataError,
/// naming `where`, for a pattern that is none.
TargetWords target_words(const PeftConfig& config, const model::DecoderConfig& decoder,
                         const std::string& where);

}  // namespace tptrain::adapters
