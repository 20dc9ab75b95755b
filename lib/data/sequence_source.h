// The sequences that one source gives, by number: what a sequence is, by packing, is in
// batch_sampler.h. Which come when is for the sampler.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "data/best_fit.h"
#include "data/packing.h"
#include "data/token_store.h"
#include "formats/token_file.h"

namespace tptrain::data {

enum class LastWindow;

class SequenceSource {
 public:
  /// Maps the token file. Throws DataError as open_tokens.
  SequenceSource(const PreparedTokens& tokens, int64_t seq_length, Packing packing,
                 DocumentMask mask, LastWindow last_window);

  int64_t sequences() const { return sequences_; }
  int64_t held_tokens() const { return held_tokens_; }  // in their positions
  int64_t truncated() const { return truncated_; }      // documents of which tokens are left out
  /// Row `row` of `batch`, which is padding before.
  void fill(int64_t sequence, HostBatch& batch, int64_t row) const;

 private:
  formats::TokenFile file_;
  int64_t seq_length_;
  Packing packing_;
  DocumentMask mask_;
  std::optional<BestFitRows> best_fit_;  // where the packing is that
  int64_t sequences_ = 0;
  int64_t held_tokens_ = 0;
  int64_t truncated_ = 0;
};

}  // namespace tptrain::data
