// What ZeroOptimizer holds, shared by its parts: the step (zero_optimizer.cpp), its state
// (zero_state.cpp) and the views for audits (zero_audit.cpp). Private to this folder.
#pragma once

#include <string>
#include <vector>

#include "optim/adamw.h"
#include "zero/bucket_state.h"
#include "zero/gathering.h"
#include "zero/reduction.h"
#include "zero/zero_optimizer.h"

namespace tptrain::zero {

/// Order of a step's calls; a call out of order would train on gradients that were summed twice or
/// not at all.
enum class Phase { accumulating, reduced, clipped, updated };

/// State kept in bf16, handed out in fp32.
struct Fp32Copy {
  at::Tensor copy;
  at::Tensor live;
};

struct ZeroOptimizer::Impl {
  ParamBuckets& buckets;
  comm::Communicator& tp;
  comm::Communicator& dp;
  Options options;
  StateLayout layout;
  at::Device device;

  std::vector<BucketState> states;
  Gathering gathering;
  Reduction reduction;
  std::vector<std::string> parameter_names;  // in block order

  std::vector<optim::AdamWRange> ranges;  // of all buckets; views of static buffers, made once
  // Views: this rank's shard without padding and without what another tp rank owns; and copies that
  // another tp rank owns: not in the norm, but in the finite flag.
  std::vector<at::Tensor> owned_gradients;
  std::vector<at::Tensor> other_gradients;
  std::vector<Fp32Copy> fp32_copies;

  at::Tensor parameter_indices;  // int64 [parameters]: 0, 1, ...
  at::Tensor updates;            // fp32 scalar: exact up to 2^24 updates
  at::Tensor gradient_scale;     // fp32 scalar: the clip factor
  at::Tensor finite;             // bool scalar
  Phase phase = Phase::accumulating;

  Impl(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
       const Options& options);
  void make_ranges(BucketState& state);
  void make_norm_views(BucketState& state);
  void require(Phase expected, const char* call, const char* remedy) const;

  /// Which of the masters were just written.
  enum class Written { shard, held };
  /// Makes parameters from masters, here and on the other dp ranks. Collective over dp.
  void publish(Written written);
  /// Every dp rank gets every shard of the parameters. Collective over dp.
  void gather_data();
  /// Adam starts anew: a step counter with old moments, or the reverse, would be a wrong bias
  /// correction.
  void clear_moments();
  /// `held` itself, or a copy in fp32 that state_loaded() writes back.
  at::Tensor in_fp32(const at::Tensor& held);
  at::Tensor culprit(const at::Tensor& losses_finite) const;
};

}  // namespace tptrain::zero
