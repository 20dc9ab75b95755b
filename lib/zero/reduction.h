// The way of the gradients: from main_grad of a block, over tp and dp, into the shard of this rank.
// One path for every stage; the cadence decides when a block goes it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"
#include "zero/layout.h"

namespace tptrain::zero {

class Reduction {
 public:
  /// Buckets, states and axes must outlive it.
  Reduction(const ParamBuckets& buckets, std::vector<BucketState>& states,
            const StateLayout& layout, comm::Communicator& tp, comm::Communicator& dp, Fault fault);

  /// A new step: all gradients are zero.
  void clear();
  /// The block's backward begins, or is complete. Nothing where gradients are reduced once a step.
  void begin_block(int block);
  void end_block(int block);
  /// The step's backward is complete: afterwards BucketState::gradient holds its reduced gradient.
  void finish();

  /// fp32, one word for each parameter in block order: inf or nan where its gradient on this rank
  /// was not finite before any sum over ranks, in any micro-batch since clear().
  const at::Tensor& marks() const { return marks_; }

 private:
  // One sum over tp: this rank's copies travel through places in the staging.
  struct TpSum {
    at::Tensor whole;  // what is reduced; undefined: nothing
    at::Tensor staging;
    std::vector<at::Tensor> gradients;  // of copied slices
    std::vector<at::Tensor> places;     // where this rank puts them, and finds the sums
  };
  struct Block {
    std::vector<BucketState*> states;
    std::vector<at::Tensor> gradients;  // of each parameter, 1-D
    at::Tensor marks;                   // their words
    TpSum tp_sum;
    bool cleared_by_user = false;  // a later block adds to its gradient first
  };
  struct Slot {
    int block = -1;  // whose gradients are on their way over dp
    std::vector<std::unique_ptr<comm::Work>> works;
  };
  TpSum make_tp_sum(int block) const;
  void zero_block(int block);
  void sum_over_tp(Block& block);
  void start(int block);
  void land(Slot& slot);

  const ParamBuckets& buckets_;
  std::vector<BucketState>& states_;
  StateLayout layout_;
  comm::Communicator& tp_;
  comm::Communicator& dp_;
  Fault fault_;
  at::Tensor marks_;
  std::vector<Block> blocks_;
  std::vector<Slot> slots_;
};

}  // namespace tptrain::zero
