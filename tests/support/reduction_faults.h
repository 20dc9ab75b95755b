// Deliberately wrong reductions of gradients and of their norm, for mutation tests: the axes that
// training is given do them, production knows none. Each keeps the ranks in step.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "zero/param_buckets.h"

namespace tptrain::testing {

enum class ReductionFault {
  none,
  scale_dp_sum,                     // the gradient is the mean over dp, not the sum
  skip_dp_reduction,                // each dp rank keeps its own gradient
  double_count_replicated_in_norm,  // every tp rank counts its copy
  drop_norm_sum_over_tp,            // each tp rank clips by the norm of its own elements
  drop_partial_sum_over_tp,         // replicated parameters keep this rank's share
  drop_copies_sum_over_tp           // copies of a kv head keep this rank's share
};

/// Two axes, of which one does what the fault says.
class FaultyAxes {
 public:
  /// Both must outlive it.
  FaultyAxes(comm::Communicator& tp, comm::Communicator& dp, ReductionFault fault);
  ~FaultyAxes();

  comm::Communicator& tp() { return tp_ ? *tp_ : real_tp_; }
  comm::Communicator& dp() { return dp_ ? *dp_ : real_dp_; }
  /// Before the first step: whose gradients are summed over tp. They must outlive the last one.
  void watch(const zero::ParamBuckets& buckets) { buckets_ = &buckets; }

 private:
  comm::Communicator& real_tp_;
  comm::Communicator& real_dp_;
  const zero::ParamBuckets* buckets_ = nullptr;
  std::unique_ptr<comm::Communicator> tp_, dp_;  // null: the real one
};

}  // namespace tptrain::testing
