// The micro-batch of (step, dp_rank) as a pure function of (seed, step): no position is hidden
// anywhere, so any layout and any resume read the same data. A sequence is, by packing:
//   stream   a window of seq_length + 1 tokens, at stride seq_length, of all documents end to end
//   best_fit documents of up to seq_length tokens whole, as many as fit, longer ones in pieces; the
//            last token of a document has no target, and what is left of the row is padding
//   none     a document: its first seq_length + 1 tokens; what a shorter one leaves is padded with
//            id 0, which is no target
// With a document mask, documents in a sequence are told apart: the batch says where they end, a
// piece cut off by the sequence's border being a document of its own.
// Epoch e visits them in a permutation keyed by (seed, e) (a Feistel network: no memory, any index
// at once). The global batch of step s is sequences [s*G, (s+1)*G) of the endless concatenation of
// epochs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/packing.h"
#include "data/token_store.h"

namespace tptrain::data {

struct BatchShape {
  int64_t seq_length = 0;
  int64_t micro_batch_size = 0;  // sequences
  int64_t accumulation = 1;      // micro-batches per step and dp rank
  int dp_size = 1;
  int64_t global_batch_size() const { return micro_batch_size * accumulation * dp_size; }
};

struct SamplerOptions {
  uint64_t seed = 0;
  bool shuffle = true;
  Packing packing = Packing::stream;
  DocumentMask document_mask = DocumentMask::off;
};

class BatchSampler {
 public:
  /// Maps the token file. Throws DataError: damaged file, or fewer sequences than one global batch
  /// (says how much text there is and what is needed).
  BatchSampler(const PreparedTokens& tokens, const BatchShape& shape,
               const SamplerOptions& options);
  ~BatchSampler();
  BatchSampler(BatchSampler&&) noexcept;

  /// Micro-batch `micro` (of accumulation) of `step` for `dp_rank`. The global batch's sequences go
  /// to (micro, dp_rank) in the order micro-major, then dp, so that the set of sequences of a step
  /// does not depend on dp and accumulation as long as the global batch is the same.
  HostBatch micro_batch(int64_t step, int dp_rank, int64_t micro) const;
  int64_t windows() const;          // sequences per epoch
  int64_t truncated() const;        // of these, documents of which tokens are left out
  double padding() const;           // share of an epoch's positions that hold no token
  int64_t steps_per_epoch() const;  // rounded down
  const BatchShape& shape() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::data
