// Vocabulary, merges and added tokens from lists as files have them, checked. Private to this
// folder.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tokenizer/bpe_loaders.h"
#include "tokenizer/bpe_model.h"

namespace tptrain::tokenizer {

/// Throws DataError: a token or an id given twice, ids that leave most numbers out, none at all.
Vocabulary make_vocabulary(std::vector<std::pair<std::string, int32_t>> entries,
                           const std::string& where);

/// Throws DataError: a part or the product is not in the vocabulary, an empty part. The prefix that
/// continues a word is not repeated in the product.
std::vector<Merge> make_merges(const std::vector<std::pair<std::string, std::string>>& pairs,
                               const Vocabulary& vocabulary, const std::string& prefix,
                               const std::string& where);

/// Throws DataError where a token's id is not the one that the library would give it.
void check_added_ids(const std::vector<AddedToken>& added, const Vocabulary& vocabulary,
                     const std::string& name);

/// Adds the tokens of `beside` to those of the tokenizer's own file, as the library does: a token
/// that is there already gets its flags where they come with an id, and stays as it is otherwise.
/// Throws DataError where an id is another than the library gives.
void add_tokens_beside(const BesideTokenizer& beside, const Vocabulary& vocabulary,
                       std::vector<AddedToken>& added);

}  // namespace tptrain::tokenizer
