// The files beside a tokenizer that say what its vocabulary does not: tokenizer_config.json,
// special_tokens_map.json, added_tokens.json, and the chat template. Both spellings of a token, a
// string and {"content": ...}, are read. Reads no vocabulary.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer/bpe_loaders.h"

namespace tptrain::tokenizer {

/// A token that a key such as "pad_token" names; which id it has, the vocabulary says.
struct NamedToken {
  std::string key;   // "bos_token", "additional_special_tokens"
  AddedToken token;  // id is -1
};

struct TokenizerConfig {
  std::string place = {};  // the directory, for messages
  std::string tokenizer_class = {};
  std::vector<NamedToken> named = {};
  std::vector<AddedToken> added =
      {};  // with ids, by id; from added_tokens_decoder, added_tokens.json
  std::optional<bool> add_bos_token = {};
  std::optional<bool> add_eos_token = {};
  std::optional<bool> add_prefix_space = {};
  std::optional<bool> legacy = {};
  /// Name and source; the only one is called "default".
  std::vector<std::pair<std::string, std::string>> chat_templates = {};

  /// The content of the token that `key` names, "" where none is.
  std::string token(const std::string& key) const;
};

/// Reads what there is in `directory`; where two files differ, tokenizer_config.json counts, then
/// special_tokens_map.json. A template in a file of its own comes before those in
/// tokenizer_config.json. Throws DataError: damaged, or a key with a value of another kind.
TokenizerConfig read_tokenizer_config(const std::string& directory);

}  // namespace tptrain::tokenizer
