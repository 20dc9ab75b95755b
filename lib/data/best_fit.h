// Documents packed into sequences without cutting any that fits into one: best fit in the order of
// falling lengths, which leaves little padding (Ding et al., "Fewer Truncations Improve Language
// Modeling", 2024, section 3). Arithmetic on lengths alone, the same on every rank.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/packing.h"

namespace tptrain::data {

class BestFitRows {
 public:
  /// document_ends: of documents end to end from token 0, rising. A document of more than
  /// seq_length tokens gives pieces of seq_length, each a row of its own, and what is left over. A
  /// single token, or one left over, predicts nothing and is left out.
  BestFitRows(std::span<const int64_t> document_ends, int64_t seq_length);

  /// Of seq_length tokens at most each, in the order of the first document in each.
  int64_t rows() const { return static_cast<int64_t>(row_begins_.size()) - 1; }
  /// In the order of the token file.
  std::span<const Piece> pieces(int64_t row) const;
  int64_t tokens() const { return tokens_; }  // of all rows

 private:
  std::vector<Piece> pieces_;
  std::vector<int64_t> row_begins_ = {0};  // among the pieces, and their end
  int64_t tokens_ = 0;
};

}  // namespace tptrain::data
