// The files of a corpus -> the documents of a token file. What the documents are is in
// token_store.h; which files, and whether it need be done at all, is decided there too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/token_store.h"
#include "formats/token_file.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

enum class Format { text, jsonl };

struct CorpusFile {
  std::filesystem::path path;
  Format format = Format::text;
  std::string sha256;  // of the contents that the token file is named after
};

/// Whether a file's rows have labels: its first row says so for all. Throws DataError as
/// tokenize_files.
bool any_labels(const std::vector<CorpusFile>& files, int64_t vocab_size);

/// Appends every document in order. Text is tokenized by several threads; the result does not
/// depend on their number. Throws DataError with file:line: see prepare_tokens.
void tokenize_files(const std::vector<CorpusFile>& files, const tokenizer::Tokenizer& tokenizer,
                    int64_t vocab_size, const Corpus& corpus, formats::TokenFileWriter& writer);

}  // namespace tptrain::data
