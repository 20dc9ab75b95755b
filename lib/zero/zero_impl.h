// What ZeroOptimizer holds, shared by its parts: the step (zero_optimizer.cpp), its state
// (zero_state.cpp) and the views for audits (zero_audit.cpp). Private to this folder.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "optim/update_rule.h"
#include "zero/bucket_state.h"
#include "zero/deferred_update.h"
#include "zero/gatherer.h"
#include "zero/gradient_norm.h"
#include "zero/gradient_reducer.h"
#include "zero/rank_matrices.h"
#include "zero/table_rows.h"
#include "zero/zero_optimizer.h"

namespace tptrain::zero {

/// Order of a step's calls; a call out of order would train on gradients that were summed twice or
/// not at all.
enum class Phase { accumulating, reduced, clipped, updated };

struct ZeroOptimizer::Impl {
  ParamBuckets& buckets;
  comm::Communicator& tp;
  comm::Communicator& dp;
  zero::Options options;
  StateLayout layout;
  at::Device device;

  std::vector<BucketState> states;
  std::optional<TableRows> table_rows;  // of block 0, where there is a table and dp has ranks
  Gatherer gatherer;
  GradientReducer reducer;
  std::vector<std::string> parameter_names;  // in block order

  std::optional<SumsOfSquares> squares;  // owned and other gradients (NormViews)

  at::Tensor parameter_indices;  // int64 [parameters]: 0, 1, ...
  at::Tensor learning_rate;      // fp64 scalar, of the next update
  at::Tensor updates;            // fp32 scalar: exact up to 2^24 updates
  at::Tensor gradient_scale;     // fp32 scalar: the clip factor
  at::Tensor finite;             // bool scalar; false: there is nothing to apply
  Phase phase = Phase::accumulating;
  bool update_finished = true;               // `finite` is false
  std::function<void()> before_update = {};  // of the state; called once

  std::optional<RankMatrices> matrices;  // of a rule that must see them whole
  std::optional<DeferredUpdate>
      deferred;  // of all buckets; goes first: it may be at work on the rest

  Impl(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
       const Options& options);
  /// Of the elements this rank updates; views of static buffers.
  void append_ranges(const BucketState& state, int part,
                     std::vector<optim::UpdateRange>& ranges) const;
  /// Likewise. owned: this rank's shard without padding and without what another tp rank owns.
  /// other: copies that another tp rank owns: not in the norm, but in the finite flag.
  struct NormViews {
    std::vector<at::Tensor> owned, owned_marks;
    std::vector<at::Tensor> other, other_marks;
  };
  void append_norm_views(const BucketState& state, NormViews& views) const;
  /// The coming look-up is of a table that this rank does not hold whole, and need not.
  bool looks_up_rows() const;
  void require(Phase expected, const char* call, const char* remedy) const;

  /// The last update is done, for readers and writers outside a step, and its flag taken back: a
  /// replay of a captured step applies the update before it, which may be this one.
  void finish_update();
  /// The state is about to be written by an update.
  void state_changes();
  /// Which of the masters were just written.
  enum class Written { shard, held };
  /// Makes parameters from masters; other ranks' shards of them are gathered when they are needed.
  /// Collective over dp.
  void publish(Written written);
  /// The rule starts anew: a step counter with old moments, or the reverse, would be a wrong bias
  /// correction.
  void clear_slots();
  /// One kind of state, as pieces of what this rank holds of it.
  void append_state(sharding::StateDict& dict, const sharding::StateKind& kind,
                    const std::function<at::Tensor(const BucketState&)>& held_of) const;
  at::Tensor culprit(const at::Tensor& losses_finite) const;
};

}  // namespace tptrain::zero
