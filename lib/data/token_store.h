// Text -> one contiguous token file per split, prepared once and reused. Never includes torch.
//
//   format   a document is
//   text     a file. Closed by end of text.
//   jsonl    a row: {"text": "..."}, tokenized and closed as above; or {"input_ids": [...]},
//            taken as it is, nothing added. With "labels": [...] beside input_ids, labels[i] is
//            what the token before i is asked to predict; -100: not counted (Hugging Face's
//            meaning). Rows stand one a line, or in one JSON array. All rows of a file are of one
//            kind; data/jsonl_rows.h reads them. A conversation is rendered by a chat template, a
//            prompt and its completion are joined, and labels say what is learned (chat_rows.h).
// Either may be packed by gzip or zstd. What a file holds is data/file_kind.h.
//   indexed  a document of Megatron's token files (formats/indexed_tokens.h), whose tokens are read
//            where they lie.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "config/share.h"
#include "data/holdout.h"
#include "data/row_names.h"
#include "data/train_on.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::chat_template {
class ChatTemplate;
}

namespace tptrain::data {

struct SourceFile {
  std::filesystem::path path;
  size_t source = 0;          // which of the sources
  bool in_directory = false;  // found below a directory, not named by itself or by a glob
};

/// The files that `sources` name, sorted by bytes and without repeats; relative paths start at the
/// current directory. Globs: data/glob.h. A directory means its regular files, recursively, without
/// hidden ones. `notes` gets a sentence where a file is named by two. Throws DataError with every
/// source that matches nothing, naming it as an entry of `key`, of which these are those from
/// `first` on.
std::vector<SourceFile> expand_sources(const std::vector<config::DataSource>& sources,
                                       const std::string& key, size_t first,
                                       std::vector<std::string>& notes);

/// What is tokenized, and how.
struct Corpus {
  std::vector<config::DataSource> sources = {};
  std::optional<config::DataFormat> format = {};  // nothing: each file by its contents and name
  std::optional<config::Share> subset = {};       // of the rows; none: all
  Holdout holdout = {};                           // of these, which documents
  RowNames names = {};                            // of the columns of rows
  double max_bad_fraction = 0;   // of rows: how many may be malformed, and are left out
  bool special_as_text = false;  // special tokens' strings in the text are ordinary text
  /// Ids, of rows and of text, and labels must be below it: the model's rows. 0: the tokenizer's.
  int64_t vocab_size = 0;
  bool trust_times = false;  // files of the same size and time as once are not read to know them
  int threads = 0;           // 0: one a core of this process
  int64_t part_bytes = int64_t{512} << 20;  // of a larger corpus, after which an interrupted run
                                            // goes on
  std::string key = {};                     // of the sources, for messages; "": data.<split>
  size_t first = 0;                         // which entry of it the first source is
  ChatOptions chat = {};
  /// Gives what renders conversations, and is asked only where there are some; it may throw.
  std::function<std::shared_ptr<const chat_template::ChatTemplate>()> chat_template = {};
};

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
  /// Megatron's token files, which are read where they lie, by their stems; `path` is the first.
  std::vector<std::filesystem::path> indexed = {};
  int64_t vocab_size = 0;    // with `indexed`: ids must be below
  std::string read_as = {};  // "rows, each a conversation (2 files); text (1 file)"
  int32_t end_of_turn = -1;  // what conversations end an answer with, where that is learned
  std::vector<std::string> notes = {};  // sentences for the user: files of directories and rows
                                        // (of tokens made now) that were left out
};

/// As one rank tells the others: bytes, since names may hold any.
std::string to_wire(const PreparedTokens& prepared);
PreparedTokens prepared_from_wire(const std::string& wire);

/// Tokenizes all documents of all files (an empty one is none) into
/// `directory`/<split>-<identity>.bin and .idx (formats/token_file.h), durably, unless a valid one
/// is there. Text gets what the tokenizer's post-processor adds (begin of text), and end of text
/// where it does not end with it (and the tokenizer knows one). `identity` is the SHA-256 of the
/// tokenizer's hash, what decides tokens in `corpus`, and the files' formats and contents in order:
/// neither names nor time stamps decide reuse. Memory is bounded but for text files with a
/// tokenizer that needs a document whole: such a file (at most 2 GiB) is held by itself. A damaged
/// token file is made anew. Of several processes that prepare the same tokens in one directory one
/// makes them, and what killed ones left is removed (preparing.h). Throws DataError: no text, a
/// source that matches nothing, an unreadable file, a file that is neither text nor rows and was
/// named (in a directory it is left out), a file that changes while it is read, rows that are not
/// as above, more than max_bad_fraction of all, a failed write.
PreparedTokens prepare_tokens(const Corpus& corpus, const tokenizer::Tokenizer& tokenizer,
                              const std::filesystem::path& directory, const std::string& split);

}  // namespace tptrain::data
