// Rows that are rendered or joined, tokenized and labelled by several threads, into a token file in
// their order. Which tokens are learned is chat_rows.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "chat_template/chat_template.h"
#include "data/chat_rows.h"
#include "data/corpus_rows.h"
#include "data/jsonl_rows.h"
#include "data/token_output.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::data {

class ChatWriter {
 public:
  struct Context {
    const tokenizer::Tokenizer& tokenizer;
    const chat_template::ChatTemplate* chat_template = nullptr;  // conversations need one
    ChatOptions options = {};
    int64_t vocab_size = 0;  // rows of the model: ids must be below
    int threads = 1;
    RowTally& tally;  // of rows that the template or the tokenizer refuses
  };
  ChatWriter(const Context& context, TokenOutput& output) : context_(context), output_(output) {}

  /// `bytes`: the length of the row's line; `place`, "file:line", is for messages.
  void add(JsonlRow row, size_t bytes, std::string place);
  /// Writes what waits. Throws BadRow, of the first row that cannot be encoded, with its place,
  /// where the tally tolerates none.
  void flush();

  int64_t rows() const { return rows_; }
  /// Rows of which nothing is learned; they are left out.
  int64_t unlearned() const { return unlearned_; }
  const std::string& first_unlearned() const { return first_unlearned_; }
  /// The roles in that row; empty where it has none, or was counted before.
  const std::string& roles_of_unlearned() const { return roles_of_unlearned_; }
  /// What was counted before, of the same file.
  void resume(int64_t rows, int64_t unlearned, std::string first_unlearned) {
    rows_ = rows;
    unlearned_ = unlearned;
    first_unlearned_ = std::move(first_unlearned);
  }

 private:
  struct Waiting {
    JsonlRow row;
    std::string place;
  };
  LabelledIds encode(const Waiting& waiting) const;
  std::vector<std::optional<LabelledIds>> encode_all() const;
  void append(const LabelledIds& row, const std::string& place);

  Context context_;
  TokenOutput& output_;
  std::vector<Waiting> waiting_;
  size_t waiting_bytes_ = 0;
  int64_t rows_ = 0;
  int64_t unlearned_ = 0;
  std::string first_unlearned_;
  std::string roles_of_unlearned_;
};

}  // namespace tptrain::data
