// Documents of which no token is a target: they are read, cost their time and teach nothing.
// Counted in a token file, and found again in the files that it was made from.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/packing.h"
#include "data/token_store.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

struct TargetlessDocuments {
  int64_t count = 0;
  std::vector<int64_t> first = {};  // the numbers of the first few, from 0
};

/// As they are trained: with Packing::none only what lies within seq_length counts. A document of
/// one token has no target. Throws DataError as open_tokens.
TargetlessDocuments targetless_documents(const PreparedTokens& tokens, Packing packing,
                                         int64_t seq_length);

/// "file:line" of the row, or the file, that each of `documents` (rising) was made from. Reads the
/// files up to the last of them. Throws DataError as prepare_tokens, which made the token file from
/// the same corpus.
std::vector<std::string> places_of_documents(const Corpus& corpus, const std::string& split,
                                             const tokenizer::Tokenizer& tokenizer,
                                             const std::vector<int64_t>& documents);

}  // namespace tptrain::data
