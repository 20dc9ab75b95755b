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
// epochs. Several sources are one epoch together, each in it as often as it is repeated; or, with
// weights, take turns (mixture.h), each in epochs of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
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

/// Of packing stream: what is left of the tokens behind the last whole window.
enum class LastWindow { left_out, padded };

struct SamplerOptions {
  uint64_t seed = 0;
  bool shuffle = true;
  Packing packing = Packing::stream;
  DocumentMask document_mask = DocumentMask::off;
  LastWindow last_window = LastWindow::left_out;
  bool whole_batches = true;  // an epoch must hold one at least
};

/// One source of a mixture.
struct SourceTokens {
  PreparedTokens tokens;
  std::string name = {};
  std::optional<double> weight = {};  // all sources have one, or none
  int64_t repeat = 1;                 // without a weight: how often it is in an epoch
};

/// What decides which sequences come when, beside options and batch: of one source, the identity of
/// its tokens.
std::string identity_of(const std::vector<SourceTokens>& sources);

class BatchSampler {
 public:
  /// Maps the token files. Throws DataError: damaged file, fewer sequences than one global batch,
  /// or none (says how much text there is and what is needed), or a source that has none at all;
  /// ConfigError as MixtureSchedule.
  BatchSampler(const std::vector<SourceTokens>& sources, const BatchShape& shape,
               const SamplerOptions& options);
  BatchSampler(const PreparedTokens& tokens, const BatchShape& shape,
               const SamplerOptions& options);
  ~BatchSampler();
  BatchSampler(BatchSampler&&) noexcept;

  /// Micro-batch `micro` (of accumulation) of `step` for `dp_rank`. The global batch's sequences go
  /// to (micro, dp_rank) in the order micro-major, then dp, so that the set of sequences of a step
  /// does not depend on dp and accumulation as long as the global batch is the same.
  HostBatch micro_batch(int64_t step, int dp_rank, int64_t micro) const;
  /// What each source of a mixture with weights gives among the first `sequences`; empty without.
  struct SourceProgress {
    std::string name;
    int64_t sequences = 0;
    double epoch = 0;
  };
  std::vector<SourceProgress> progress(int64_t sequences) const;
  int64_t windows() const;    // sequences per epoch
  int64_t truncated() const;  // of these, documents of which tokens are left out
  double padding() const;     // share of an epoch's positions that hold no token
  const BatchShape& shape() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::data
