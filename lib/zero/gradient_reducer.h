// The way of the gradients: from main_grad of a block, over tp and dp, into the shard of this rank.
// One path for every stage; the cadence decides when a block goes it: in the backward of every
// micro-batch, or in that of the last one, each time beside the backward of the blocks before it.
//
// The embedding's table would come last and beside nothing. So its gradient goes in two shares,
// where that pays: what a tied head and earlier micro-batches have added to main_grad sets out when
// the head's backward is complete; the look-up's rows follow as they are (table_rows.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"
#include "zero/layout.h"
#include "zero/nonfinite.h"
#include "zero/table_rows.h"

namespace tptrain::zero {

class GradientReducer final : public parameters::GradientOwner {
 public:
  /// Buckets, states and axes must outlive it, and `rows`, of block 0's table; null: there is no
  /// such.
  GradientReducer(const ParamBuckets& buckets, std::vector<BucketState>& states,
                  const StateLayout& layout, comm::Communicator& tp, comm::Communicator& dp,
                  TableRows* rows);
  GradientReducer(const GradientReducer&) = delete;  // parameters know its address
  ~GradientReducer();

  // Of the weights whose gradient is first written by a product, as a whole.
  bool is_first_write(const parameters::Parameter& parameter) const override;
  void written(const parameters::Parameter& parameter) override;

  /// A new step: all gradients are zero. Their memory stays as it is until the first block's
  /// backward begins, or finish().
  void clear();
  /// Without it no micro-batch of a step is taken for the last one. What it looks up has been
  /// announced to `rows`.
  void begin_micro_batch(MicroBatchPlace place);
  /// In the backward of block 0: as BlockObserver.
  void add_table_rows(parameters::Parameter& table, at::Tensor rows, const at::Tensor& ids);
  /// The block's backward begins, or is complete.
  void begin_block(int block);
  void end_block(int block);
  /// The step's backward is complete: afterwards BucketState::gradient holds its reduced gradient,
  /// and nothing is under way in the current stream.
  void finish();

  /// fp32, one word for each parameter in block order: inf or nan where its gradient on this rank
  /// was not finite before any sum over ranks, in any micro-batch since clear(). But for those of
  /// mark_for_norm, which whoever makes the norm has to see to.
  const at::Tensor& marks() const { return marks_; }
  /// The word of a gradient that no rank adds to: what the norm reads is what this rank has made,
  /// so that one pass over it does for both. Else undefined.
  at::Tensor mark_for_norm(const parameters::Parameter& parameter) const;

 private:
  using InFlight = std::vector<std::unique_ptr<comm::Work>>;
  // One sum over tp: this rank's copies travel through places in the staging.
  struct TpSum {
    at::Tensor whole;  // what is reduced; undefined: nothing
    at::Tensor staging;
    std::vector<at::Tensor> gradients;  // of copied slices
    std::vector<at::Tensor> places;     // where this rank puts them, and finds the sums
  };
  // A bucket's way. To make its main_grad zero: marks for the weights whose next writer can
  // overwrite (unwritten_), zeros for everything else, padding included.
  struct BucketReduction {
    BucketState* state = nullptr;
    std::vector<parameters::Parameter*> overwritable;
    std::vector<at::Tensor> zeroed;
    bool shard_is_empty = true;  // in this step nothing has reached its shard
  };
  struct Block {
    std::vector<BucketReduction> pieces;
    NonfiniteMarks marks;  // of the gradients that neither the norm nor table_ searches
    TpSum tp_sum;
    bool cleared_by_user = false;  // a later block adds to its gradient first

    // In this step:
    bool started = false;          // its reduction, at least once
    bool gathers_started = false;  // of the reduced gradient (stage 0)
  };
  struct Buffer {
    std::vector<BucketReduction*> sent;  // whose gradients are on their way over dp
    InFlight in_flight;
  };
  // The table of block 0, where its rows can travel.
  struct Table {
    TableRows& rows;
    BucketReduction* piece = nullptr;
    NonfiniteMarks marks;
    at::Tensor mark;       // its word of marks()
    bool is_tied = false;  // the head adds to it first
    // Of this micro-batch:
    bool sends_rows = false;  // else they are added to main_grad
    bool rows_came = false;   // and were sent
    // In main_grad is what has to be summed over dp: of this micro-batch, or of this step.
    bool is_written = false;
  };
  bool changes_before_norm(const parameters::Parameter& parameter) const;
  TpSum make_tp_sum(int block) const;
  BucketReduction make_bucket_reduction(int block, BucketState& state) const;
  void find_table(TableRows& rows);
  bool sends_rows() const { return table_ && table_->sends_rows; }
  bool goes_as_rows(const BucketReduction& piece) const {
    return sends_rows() && &piece == table_->piece;
  }
  void clear_memory();
  void append_unwritten(const BucketReduction& piece, std::vector<at::Tensor>& zeroed);
  void make_zero(int block);
  void zero_unwritten(Block& block);
  void sum_over_tp(Block& block);
  Buffer& buffer(int block);
  void start(int block);
  void start_table();
  void send(int block, std::vector<BucketReduction*> pieces);
  at::Tensor& scattered_to(const BucketReduction& piece) const;
  void accumulate(Buffer& buffer);
  void complete(int block);
  void gather_gradient(int block);

  const ParamBuckets& buckets_;
  StateLayout layout_;
  comm::Communicator& tp_;
  comm::Communicator& dp_;
  MicroBatchPlace place_ = MicroBatchPlace::before_last;
  bool memory_is_clear_ = true;  // of the step that clear() began
  at::Tensor marks_;
  std::unordered_map<const parameters::Parameter*, at::Tensor> marks_for_norm_;
  // Of every weight that can be overwritten: nothing has been written since it was made zero.
  std::unordered_map<const parameters::Parameter*, bool> unwritten_;
  std::vector<Block> blocks_;
  std::vector<Buffer> buffers_;
  std::optional<Table> table_;
  std::array<int, kSlots> sent_by_;  // the block that last used each slot's bf16 memory; -1: none
  InFlight gathers_;
};

}  // namespace tptrain::zero
