// Vocabulary and merges from lists as files have them, checked. Private to this folder.
#pragma once

#include <string>
#include <utility>
#include <vector>

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

}  // namespace tptrain::tokenizer
