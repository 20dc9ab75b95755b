// Text files -> one contiguous token file per split, prepared once and reused; and the map of it that every rank reads. Never includes torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

/// The files that `sources` name, sorted and without repeats. Globs know *, ?, [..] within a component and ** across; a directory means its regular files,
/// recursively. Throws DataError where a source matches nothing.
std::vector<std::filesystem::path> expand_sources(const std::vector<config::DataSource>& sources);

/// Tokenizes all files (each one document, closed by end_of_text) into `directory`/<split>-<identity>.bin + .idx (formats/token_file.h) unless a valid one is
/// there; durable. Returns the path without extension. `identity` (SHA-256 of tokenizer, names' order and contents) decides reuse: never a time stamp.
/// To be called by one rank per shared directory. Throws DataError: empty data, unreadable file, text that is not valid for the tokenizer.
struct PreparedTokens {
  std::filesystem::path path;  // without extension
  std::string identity;        // hex
  int64_t tokens = 0;
  int64_t documents = 0;
};
PreparedTokens prepare_tokens(const std::vector<config::DataSource>& sources, const tokenizer::Tokenizer& tokenizer, const std::filesystem::path& directory, const std::string& split);

}  // namespace tptrain::data
