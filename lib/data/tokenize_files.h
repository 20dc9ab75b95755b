// The files of a corpus -> the documents of a token file. What the documents are is in
// token_store.h; which files, and whether it need be done at all, is decided there too.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/file_kind.h"
#include "data/jsonl_rows.h"
#include "data/token_output.h"
#include "data/token_store.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

struct CorpusFile {
  std::filesystem::path path;
  FileKind kind = {};
  std::optional<RowKind> rows = {};  // of its first row; none where it has none, or is text
  bool marked = false;               // text begins with a byte order mark
  bool any_bytes = false;            // NUL bytes are text: data.format says so
  std::string sha256 = {};           // of the contents that the token file is named after
};

/// Reads the beginning of the files. Those of directories that are neither text nor rows are left
/// out, and so is, where there are rows, text that is not named .txt: what lies beside rows is a
/// data set's description. `notes` gets a sentence for each source of which something is.
/// Throws DataError with every named file that is neither, and as tokenize_files.
std::vector<CorpusFile> choose_files(const std::vector<SourceFile>& files, const Corpus& corpus,
                                     const std::string& key, int64_t vocab_size,
                                     std::vector<std::string>& notes);

/// Appends every document in order, from where the parts of `output` end, in further parts of
/// corpus.part_bytes. Text is tokenized by several threads; the result does not
/// depend on their number. `chat_template` may be null where no row is a conversation. `notes` gets
/// a sentence for each file of which rows were left out, and for rows that are malformed. Throws
/// DataError with file:line, or with `key` where more are malformed than corpus.max_bad_fraction:
/// see prepare_tokens.
void tokenize_files(const std::vector<CorpusFile>& files, const tokenizer::Tokenizer& tokenizer,
                    const chat_template::ChatTemplate* chat_template, int64_t vocab_size,
                    const Corpus& corpus, const std::string& key, TokenOutput& output,
                    std::vector<std::string>& notes);

}  // namespace tptrain::data
