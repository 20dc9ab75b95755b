// The way of the gradients: from main_grad of a block, over tp and dp, into the shard of this rank.
// One path for every stage; the cadence decides when a block goes it: in the backward of every
// micro-batch, or in that of the last one, each time beside the backward of the blocks before it.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"
#include "zero/layout.h"
#include "zero/nonfinite.h"

namespace tptrain::zero {

class Reduction {
 public:
  /// Buckets, states and axes must outlive it.
  Reduction(const ParamBuckets& buckets, std::vector<BucketState>& states,
            const StateLayout& layout, comm::Communicator& tp, comm::Communicator& dp, Fault fault);

  /// A new step: all gradients are zero. Their memory stays as it is until the first block's
  /// backward begins, or finish().
  void clear();
  /// Without it no micro-batch of a step is taken for the last one.
  void begin_micro_batch(MicroBatchPlace place) { place_ = place; }
  /// The block's backward begins, or is complete.
  void begin_block(int block);
  void end_block(int block);
  /// The step's backward is complete: afterwards BucketState::gradient holds its reduced gradient,
  /// and nothing is under way in the current stream.
  void finish();

  /// fp32, one word for each parameter in block order: inf or nan where its gradient on this rank
  /// was not finite before any sum over ranks, in any micro-batch since clear().
  const at::Tensor& marks() const { return marks_; }

 private:
  using Works = std::vector<std::unique_ptr<comm::Work>>;
  // One sum over tp: this rank's copies travel through places in the staging.
  struct TpSum {
    at::Tensor whole;  // what is reduced; undefined: nothing
    at::Tensor staging;
    std::vector<at::Tensor> gradients;  // of copied slices
    std::vector<at::Tensor> places;     // where this rank puts them, and finds the sums
  };
  struct Block {
    std::vector<BucketState*> states;
    NonfiniteMarks marks;  // of each parameter's gradient
    TpSum tp_sum;
    bool cleared_by_user = false;  // a later block adds to its gradient first
    // To make main_grad zero: flags for the weights whose next writer can overwrite, zeros for
    // everything else, padding included.
    std::vector<sharding::Parameter*> overwritable;
    std::vector<at::Tensor> zeroed;

    // In this step:
    bool started = false;          // its reduction, at least once
    bool shard_is_void = true;     // nothing has reached its accumulating shard
    bool gathers_started = false;  // of the reduced gradient (stage 0)
  };
  struct Home {
    int block = -1;  // whose gradients are on their way over dp
    Works works;
  };
  TpSum make_tp_sum(int block) const;
  void sort_by_writer(int block);
  void clear_memory();
  void make_zero(int block);
  void settle(Block& block);
  void sum_over_tp(Block& block);
  Home& home(int block);
  void start(int block);
  at::Tensor& scattered_to(const Block& block, BucketState& state) const;
  void land(Home& home);
  void complete(int block);
  void gather_gradient(int block);

  const ParamBuckets& buckets_;
  std::vector<BucketState>& states_;
  StateLayout layout_;
  comm::Communicator& tp_;
  comm::Communicator& dp_;
  Fault fault_;
  MicroBatchPlace place_ = MicroBatchPlace::before_last;
  bool memory_is_clear_ = true;  // of the step that clear() began
  at::Tensor marks_;
  std::vector<Block> blocks_;
  std::vector<Home> homes_;
  std::array<int, kSlots> sent_by_;  // the block that last used each slot's bf16 memory; -1: none
  Works gathers_;
};

}  // namespace tptrain::zero
