// What ZeRO keeps for good of a model in training: this rank's part of the master weights and of
// what the update rule keeps of them. For whoever begins, saves, resumes or audits a run; the step
// itself is ZeroOptimizer's, which hands this out.
//
// A step leaves its update to the next one's forward (shard_update.h). Every call here finishes it
// first, unless it only counts: collective where the rule is one by matrices.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "sharding/state_dict.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

struct BucketState;
struct StateLayout;
class Gatherer;
class GradientReducer;
class ShardUpdate;

class ShardedState {
 public:
  /// What it is put together from, all of which outlives it.
  struct Parts {
    const ParamBuckets& buckets;
    std::vector<BucketState>& states;
    const StateLayout& layout;
    comm::Communicator& dp;
    ShardUpdate& update;
    Gatherer& gatherer;
    const GradientReducer& reducer;
  };
  explicit ShardedState(const Parts& parts) : parts_(parts) {}
  ShardedState(const ShardedState&) = delete;

  /// Runs what a rank does by itself, without communication, before all go on together: as it is,
  /// or through comm::agree, so that a failure or a stop of one rank ends it on every rank.
  using Locally = std::function<void(const std::function<void()>& work)>;
  static void at_once(const std::function<void()>& work) { work(); }

  /// Layout-independent random values from (seed, name, global index); each rank makes only its own
  /// shard. Clears the update rule's state and the step counter. Collective over dp.
  void initialise(uint64_t seed, const Locally& locally = at_once);
  /// Parameters from a source (master values), each rank reading only its own shard; the rule's
  /// state and the step counter are cleared. Collective over dp. Throws what the source throws;
  /// with at_once on the rank that meets it alone: it must leave through MpiSession::abort().
  void load_parameters(const sharding::TensorSource& source, const Locally& locally = at_once);

  /// Master weights (Options::frozen_values: whose) and the update rule's slots as the checkpoint
  /// wants them: live views in the type they are kept in. Takes no memory. A later update reaches
  /// the views at a time of its own: ask again after it.
  sharding::StateDict state_dict();
  /// `call` comes once, before an update writes into those views again.
  void call_before_update(std::function<void()> call);
  /// To be called after pieces of state_dict(), asked for since the last update, were overwritten:
  /// makes parameters from masters. `updates_done` restores the step counter. Collective over
  /// dp.
  void state_loaded(int64_t updates_done);
  /// Updates applied so far (skipped, non-finite steps do not count); reads the device.
  int64_t updates_done() const;

  /// All parameters are complete in memory, for a reader that no before_forward() announces. Stages
  /// 0 to 2; InternalError in stage 3. Collective over dp.
  void gather_parameters();
  /// What must be the same on several ranks, hashed: every slice of every parameter, gathered where
  /// this stage keeps only shards. Ranks that hold the same slice (name and begin) must have equal
  /// hashes. Collective over dp (stage 3). The order of slices is the same on every rank.
  struct SliceHash {
    std::string name;   // of the global tensor
    int64_t begin = 0;  // of the slice along its cut dimension; -1: the whole tensor
    uint64_t hash = 0;  // of the values in the compute dtype
  };
  std::vector<SliceHash> hash_parameters();
  /// The reduced gradient of every named slice's part this rank owns, for audits; kind is unused.
  /// Between finish_reduction() and the next begin_step().
  sharding::StateDict gradient_pieces();

 private:
  /// Which of the masters were just written.
  enum class Written { shard, held };
  void publish(Written written);
  /// From masters.
  void make_parameters(Written written);
  void append_pieces(sharding::StateDict& dict, const sharding::StateKind& kind) const;

  Parts parts_;
};

}  // namespace tptrain::zero
