// All of a text, once, in order, for evaluation: every token but the first of each document is a
// target exactly once, whatever the batch and the number of ranks. Not for training: nothing is
// shuffled, and the last batches are filled up with rows that hold no target.
//   stream   windows of all documents end to end: a document's first tokens see those before it
//   best_fit whole documents, as many as fit (best_fit.h), so in another order
//   none     each document by itself, cut where it is longer than seq_length
// Within a window a token sees only what is before it in the window; with a document mask, and in
// its document.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/best_fit.h"
#include "data/packing.h"
#include "data/token_store.h"
#include "formats/token_file.h"

namespace tptrain::data {

class SequentialBatches {
 public:
  struct Options {
    int64_t seq_length = 0;
    int64_t micro_batch_size = 1;  // rows of one dp rank in a round
    int dp_size = 1;
    Packing packing = Packing::stream;
    DocumentMask document_mask = DocumentMask::off;
    int64_t max_windows = 0;  // of all, the first; 0: all
  };
  /// Maps the token file. Throws DataError as open_tokens.
  SequentialBatches(const PreparedTokens& tokens, const Options& options);

  int64_t windows() const { return windows_; }
  /// False where max_windows left something out.
  bool whole_text() const { return whole_text_; }
  /// Every dp rank takes one batch a round; 0 where no document has a second token.
  int64_t rounds() const;
  HostBatch batch(int64_t round, int dp_rank) const;

 private:
  void count_windows_of_documents();
  void fill(int64_t window, HostBatch& batch, int64_t row) const;
  void fill_tokens(const TokenRange& range, HostBatch& batch, int64_t row) const;

  formats::TokenFile file_;
  Options options_;
  std::optional<BestFitRows> best_fit_;  // where the packing is that
  int64_t windows_ = 0;
  bool whole_text_ = true;
  std::vector<int64_t> windows_before_;  // of each document, with packing none
};

}  // namespace tptrain::data
