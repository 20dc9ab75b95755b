// Which files a tokenizer consists of, for those who copy it. Reads none.
#pragma once

#include <string>
#include <vector>

namespace tptrain::tokenizer {

/// Names, without directory, of the files that make_tokenizer(path) and a chat template may need
/// and that exist: of a directory all it knows (tokenizer.json, tokenizer.model, vocab.json,
/// merges.txt, tokenizer_config.json, special_tokens_map.json, added_tokens.json,
/// chat_template.jinja, chat_template.json); of a file the same within its directory, where its own
/// name is among them. "bytes" has none.
std::vector<std::string> tokenizer_file_names(const std::string& path);

}  // namespace tptrain::tokenizer
