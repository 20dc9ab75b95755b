// What ZeroOptimizer holds, shared by its two halves: the step (zero_optimizer.cpp) and its state
// (zero_state.cpp). Private to this folder.
#pragma once

#include <tuple>
#include <vector>

#include "optim/adamw.h"
#include "zero/zero_optimizer.h"

namespace tptrain::zero {

/// A bucket and this rank's part in it. In fp32 the master weights ARE bucket->data: no second copy
/// exists.
struct BucketState {
  Bucket* bucket = nullptr;
  int64_t shard_begin =
      0;  // of this dp rank: what it reduces, counts in the norm and saves, in every stage
  int64_t shard_end = 0;
  int64_t held_begin = 0;  // what it updates and holds moments of: stage 0 all, stage 1 its shard
  int64_t held_end = 0;
  at::Tensor exp_avg;     // [held_end - held_begin] fp32
  at::Tensor exp_avg_sq;  // likewise
  at::Tensor data_shard;  // views of the shard, for the collectives in place
  at::Tensor grad_shard;
};

/// Order of a step's calls; a call out of order would train on gradients that were summed twice or
/// not at all.
enum class Phase { accumulating, reduced, clipped, updated };

struct ZeroOptimizer::Impl {
  ParamBuckets& buckets;
  comm::Communicator& tp;
  comm::Communicator& dp;
  Options options;
  at::Device device;

  std::vector<BucketState> states;
  std::vector<optim::AdamWRange> ranges;    // of all buckets; views of static buffers, made once
  std::vector<at::Tensor> owned_gradients;  // views: this rank's shard without padding and without
                                            // what another tp rank owns
  std::vector<at::Tensor> other_gradients;  // views: copies that another tp rank owns: not in the
                                            // norm, but in the finite flag

  at::Tensor updates;         // fp32 scalar: exact up to 2^24 updates
  at::Tensor gradient_scale;  // fp32 scalar: the clip factor
  at::Tensor finite;          // bool scalar
  Phase phase = Phase::accumulating;

  Impl(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
       const Options& options);
  void make_ranges(BucketState& state);
  void make_norm_views(BucketState& state);
  void require(Phase expected, const char* call, const char* remedy) const;
  /// Every dp rank gets every shard of the parameters. Collective over dp.
  void gather_data();
  /// Adam starts anew: a step counter with old moments, or the reverse, would be a wrong bias
  /// correction.
  void clear_moments();
};

}  // namespace tptrain::zero
