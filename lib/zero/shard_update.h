// The update of a rank's part of the state by the run's rule: of which ranges, by which numbers,
// and when. Its numbers are fixed at the end of a step; the work itself comes block by block with
// the next forward (deferred_update.h), or at once when somebody outside of a step asks for the
// result.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "optim/update_rule.h"
#include "zero/bucket_state.h"
#include "zero/deferred_update.h"
#include "zero/rank_matrices.h"

namespace tptrain::zero {

class ShardUpdate {
 public:
  /// All must outlive it.
  ShardUpdate(const ParamBuckets& buckets, std::vector<BucketState>& states,
              const StateLayout& layout, const Options& options, comm::Communicator& tp,
              comm::Communicator& dp);
  ShardUpdate(const ShardUpdate&) = delete;

  // The numbers of the next update, in memory that stays.

  void set_learning_rate(double learning_rate);
  /// finite (bool scalar): else there is nothing to apply. gradient_scale: fp32 scalar.
  void set_gradient(const at::Tensor& finite, const at::Tensor& gradient_scale);
  /// The step of the last set_gradient() is dropped: begin() will not come.
  void drop_gradient();

  /// Nothing is in flight in or beside the current stream afterwards.
  void begin();
  /// The host's side of begin() alone: the device's has been, or will be, done by a graph.
  void assume_begun();

  // While a step uses the parameters; collective where the rule is one by matrices.

  /// Starts on the blocks behind `block`, beside what the current stream is given from here on.
  void run_ahead(int block);
  /// The block is updated from here on in the current stream.
  void wait_for(int block);
  void wait_for_all();

  // For readers and writers of the state outside of a step, and for its counter.

  /// The last update is done and its flag taken back: a replay of a captured step applies the
  /// update before it, which may be this one. Nothing between set_gradient() and begin(): the flag
  /// is the coming update's.
  void finish();
  /// `call` comes once, before an update writes into the state again: from announce(), or finish().
  void call_before(std::function<void()> call);
  /// A step begins, whose forward applies the last update.
  void announce();
  /// Slots are cleared, and the counter.
  void restart();
  int64_t updates_done() const;
  void set_updates_done(int64_t updates_done);

 private:
  /// done: `finite` is false. has_gradient: since set_gradient(). begun: what has not yet been
  /// applied comes with the next forward.
  enum class State { done, has_gradient, begun };
  void append_ranges(const BucketState& state, int part, std::vector<optim::UpdateRange>& ranges);

  std::vector<BucketState>& states_;
  StateLayout layout_;
  Options options_;
  optim::UpdateStep numbers_;
  State state_ = State::done;
  std::function<void()> before_writing_;
  std::optional<RankMatrices> matrices_;    // of a rule that must see them whole
  std::optional<DeferredUpdate> deferred_;  // goes first: it may be at work on the rest
};

}  // namespace tptrain::zero
