// Text files -> one contiguous token file per split, prepared once and reused. Never includes
// torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

/// The files that `sources` name, sorted by bytes and without repeats; relative paths start at the
/// current directory. Globs: data/glob.h. A directory means its regular files, recursively, without
/// hidden ones. Throws DataError, naming `key`, with every source that matches nothing.
std::vector<std::filesystem::path> expand_sources(const std::vector<config::DataSource>& sources,
                                                  const std::string& key = "data.train");

/// The token file of one split. Every rank opens it by `path`; one rank prepares it and tells the
/// others this.
struct PreparedTokens {
  std::filesystem::path path;  // without extension
  std::string identity;        // hex
  int64_t tokens = 0;
  int64_t documents = 0;
  std::string split;            // "train": messages name data.train
  bool reused = false;          // a valid file was there
  std::string rebuilt_because;  // what was wrong with the file that stood there; "" where none did
};

/// Tokenizes all files (each one document, closed by end_of_text; an empty one is none) into
/// `directory`/<split>-<identity>.bin and .idx (formats/token_file.h), durably, unless a valid one
/// is there. `identity` is the SHA-256 of the tokenizer's hash and the files' contents in order:
/// neither names nor time stamps decide reuse. Files are read in pieces where the tokenizer allows
/// it, else one at a time. A damaged token file is made anew. Temporaries of a killed call are
/// removed, so only one process at a time may prepare in a directory. Throws DataError: no text, a
/// source that matches nothing, an unreadable file, a file that changes while it is read, a failed
/// write.
PreparedTokens prepare_tokens(const std::vector<config::DataSource>& sources,
                              const tokenizer::Tokenizer& tokenizer,
                              const std::filesystem::path& directory, const std::string& split);

}  // namespace tptrain::data
