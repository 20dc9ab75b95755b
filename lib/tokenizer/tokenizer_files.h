// Which files a tokenizer consists of, for those who copy it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tptrain::tokenizer {

/// Names, relative to the directory, of the files that make_tokenizer(path), a chat template or
/// another reader of the same tokenizer may need and that exist: of a directory all that are known
/// (tokenizer.json, tokenizer.model, vocab.json, merges.txt, the files beside them, chat templates
/// with additional_chat_templates/NAME.jinja); of a file the same within its directory, where its
/// own name is among them. "bytes" has none. Without a tokenizer.model of tiktoken ranks where
/// there is a tokenizer.json: converters take that name for a sentencepiece model and fail.
std::vector<std::string> tokenizer_file_names(const std::string& path);

/// Whether a file of this name belongs to a tokenizer, wherever it lies.
bool is_tokenizer_file_name(std::string_view name);

/// Whether that leaves such a tokenizer.model of this directory out.
bool has_redundant_ranks(const std::string& directory);

}  // namespace tptrain::tokenizer
