// Texts and ids in, documents of a token file out in the same order; texts wait until there are
// enough for all threads, and the result does not depend on their number.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/jsonl_rows.h"
#include "data/token_output.h"
#include "data/tokenize_files.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

/// Text that is tokenized at once: enough work for many threads, little memory.
inline constexpr size_t kTextAtOnce = size_t{4} << 20;

class DocumentWriter {
 public:
  /// All outlive it.
  DocumentWriter(const tokenizer::Tokenizer& tokenizer, int64_t vocab_size, const Corpus& corpus,
                 int threads, TokenOutput& output);

  /// `line` 0: the whole file.
  void text(std::string document, const CorpusFile& file, int64_t line);
  void ids(const JsonlRow& row);

  /// One document in parts, cut where the tokenizer allows it (Tokenizer::last_cut).
  void begin_parts();
  /// The id that was written last of the document.
  int32_t parts(std::span<const std::string_view> parts, const CorpusFile& file);
  /// As begin_parts, of one of which something is written already.
  void resume_in_parts(int32_t last_id) {
    last_id_ = last_id;
    behind_cut_ = true;
  }
  void end_parts(const CorpusFile& file);

  /// Writes what waits.
  void flush();

 private:
  struct Place {
    const CorpusFile* file;
    int64_t line;
  };
  void check_rows(std::span<const int32_t> ids, Place place) const;

  const tokenizer::Tokenizer& tokenizer_;
  int64_t limit_;  // rows of the model where the tokenizer has more ids; 0: every id has one
  tokenizer::EncodeOptions options_;
  int threads_;
  TokenOutput& output_;
  std::vector<std::string> waiting_;
  std::vector<Place> places_;  // of those
  size_t waiting_bytes_ = 0;
  int32_t last_id_ = -1;     // of the document in parts
  bool behind_cut_ = false;  // of which a part has been taken
};

}  // namespace tptrain::data
