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
  std::string key;   // "bos_token", "image_token", "extra_special_tokens" (of the list)
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
  bool split_special_tokens = false;
  std::optional<bool> legacy = {};
  /// Name and source; one without a name is called "default".
  std::vector<std::pair<std::string, std::string>> chat_templates = {};

  /// The content of the token that `key` names, "" where none is.
  std::string token(const std::string& key) const;
  /// What of it changes the ids of a BPE tokenizer.
  BesideTokenizer beside() const;
};

/// Reads what there is in `directory`, as transformers does: with added_tokens_decoder in
/// tokenizer_config.json neither special_tokens_map.json nor added_tokens.json counts; without it
/// the names of special_tokens_map.json come before those of tokenizer_config.json. Templates in
/// files of their own (chat_template.jinja, additional_chat_templates/NAME.jinja,
/// chat_template.json) come instead of those in tokenizer_config.json. Throws DataError: damaged,
/// or a key with a value of another kind.
TokenizerConfig read_tokenizer_config(const std::string& directory);

}  // namespace tptrain::tokenizer
