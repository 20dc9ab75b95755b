// Gradients from main_grad of a block, summed over tp and dp, into the shard of this rank. One path
// for every stage; the cadence decides when a block takes it: in the backward of every micro-batch,
// or in that of the last one, each time beside the backward of the blocks before it.
//
// The embedding's table would come last and beside nothing. So its gradient goes in two shares,
// where that pays: what a tied head and earlier micro-batches have added to main_grad is reduced
// when the head's backward is complete; the look-up's rows follow as they are (table_rows.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"
#include "zero/first_writes.h"
#include "zero/layout.h"
#include "zero/nonfinite.h"
#include "zero/table_rows.h"
#include "zero/tp_gradient_sum.h"
#include "zero/written_rows.h"

namespace tptrain::zero {

enum class Lookup { announced, unknown };

class GradientReducer {
 public:
  /// Buckets, states and axes must outlive it, and `rows`, of block 0's table; null: there is no
  /// such.
  GradientReducer(const ParamBuckets& buckets, std::vector<BucketState>& states,
                  const StateLayout& layout, comm::Communicator& tp, comm::Communicator& dp,
                  TableRows* rows);
  GradientReducer(const GradientReducer&) = delete;

  /// A new step: all gradients are zero. Their memory stays as it is until the first block's
  /// backward begins, or finish().
  void begin_step();
  /// Without it no micro-batch of a step is taken for the last one. What it looks up has been
  /// announced to `rows`. Announced: all that it adds to block 0's own table comes by
  /// add_table_rows.
  void begin_micro_batch(MicroBatchPlace place, Lookup lookup);
  /// In the backward of block 0: as BlockObserver.
  void add_table_rows(parameters::Parameter& table, at::Tensor rows, const at::Tensor& ids);
  void before_backward(int block);
  void after_backward(int block);
  /// The step's backward is complete: afterwards BucketState::gradient holds its reduced gradient,
  /// and nothing is in flight.
  void finish();
  /// finish() was the last call.
  bool is_finished() const { return finished_; }

  /// fp32, one element for each parameter in block order: inf or nan where its gradient on this
  /// rank was not finite before any sum over ranks, in any micro-batch of the step. But for those
  /// of flag_for_norm, which whoever makes the norm has to see to.
  const at::Tensor& nonfinite_flags() const { return nonfinite_flags_; }
  /// The flag of a gradient that no rank adds to: what the norm reads is what this rank has made,
  /// so that one pass over it does for both. Else undefined.
  at::Tensor flag_for_norm(const parameters::Parameter& parameter) const;

 private:
  using InFlight = std::vector<std::unique_ptr<comm::Work>>;
  struct BucketReduction {
    BucketState* state = nullptr;
    bool shard_is_empty = true;  // in this step nothing has reached its shard
  };
  struct Block {
    std::vector<BucketReduction> buckets;
    NonfiniteFlags nonfinite;  // of the gradients that neither the norm nor table_ searches
    std::optional<TpGradientSum> tp_sum;
    bool zeroed_by_user = false;  // a later block adds to its gradient first

    // In this step:
    bool started = false;          // its reduction, at least once
    bool gathers_started = false;  // of the reduced gradient (stage 0)
  };
  struct Buffer {
    std::vector<BucketReduction*> sent;  // whose gradients are in flight over dp
    InFlight in_flight;
  };
  // The table of block 0, where its gradient can go as rows.
  struct Table {
    TableRows& rows;
    BucketReduction* bucket = nullptr;
    NonfiniteFlags nonfinite;
    at::Tensor flag;       // its element of nonfinite_flags()
    bool is_tied = false;  // the head adds to it first
    // Of this micro-batch:
    bool sends_rows = false;  // else they are added to main_grad
    bool rows_sent = false;
    // In main_grad is what has to be summed over dp: of this micro-batch, or of this step.
    bool is_written = false;
  };
  void find_table(TableRows& rows);
  void make_nonfinite_flags();
  bool changes_before_norm(const parameters::Parameter& parameter) const;
  bool sends_rows() const { return table_ && table_->sends_rows; }
  bool goes_as_rows(const BucketReduction& bucket) const {
    return sends_rows() && &bucket == table_->bucket;
  }
  void zero_step();
  void expect_first_writes(const BucketReduction& bucket, std::vector<at::Tensor>& zeroed);
  void zero_block(int block);
  void zero_unwritten(const Block& block);
  Buffer& buffer(int block);
  void reduce_block(int block);
  void reduce_table();
  void start_reduce_scatter(int block, std::vector<BucketReduction*> buckets);
  at::Tensor& scattered_to(const BucketReduction& bucket) const;
  void wait_and_accumulate(Buffer& buffer);
  void finish_shards(int block);
  void start_all_gather(int block);

  const ParamBuckets& buckets_;
  StateLayout layout_;
  comm::Communicator& tp_;
  comm::Communicator& dp_;
  MicroBatchPlace place_ = MicroBatchPlace::before_last;
  bool step_is_zeroed_ = true;  // the gradients of the step that begin_step() began
  bool finished_ = false;
  bool announced_ = false;  // what this micro-batch looks up
  std::optional<WrittenRows> written_rows_;
  FirstWrites first_writes_;
  at::Tensor nonfinite_flags_;
  std::unordered_map<const parameters::Parameter*, at::Tensor> flags_for_norm_;
  std::vector<Block> blocks_;
  std::vector<Buffer> buffers_;
  std::optional<Table> table_;
  std::array<int, kSlots> sent_by_;  // the block that last used each slot's bf16 memory; -1: none
  InFlight gathers_;
};

}  // namespace tptrain::zero
