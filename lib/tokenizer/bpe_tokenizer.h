// The parts of a BPE tokenizer put together: added tokens, normaliser, pre-tokeniser, model, what
// the post-processor adds, decoder. Knows no files: those are bpe_loaders.h. Private to this
// folder.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer/added_token_matcher.h"
#include "tokenizer/bpe_model.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_decoder.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::tokenizer {

struct BpeParts {
  std::string name;               // the file, for messages
  std::vector<AddedToken> added;  // with ids, in the file's order
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Vocabulary vocabulary;
  std::vector<Merge> merges;
  BpeOptions options;
  std::vector<int32_t> before;  // what add_special puts before and behind the text
  std::vector<int32_t> behind;
  TokenDecoder decoder;
  std::string eos_token;              // see bpe_loaders.h
  bool split_special_tokens = false;  // as if every text were encoded with special_as_text
  std::string configuration;  // all of the above that decides ids, but vocabulary and merges
};

/// Throws DataError: an added token given twice or whose id is another entry's, ids that are not in
/// the vocabulary, eos_token not found.
std::unique_ptr<Tokenizer> make_bpe_tokenizer(BpeParts parts);

}  // namespace tptrain::tokenizer
