// Communication at the borders of a tensor-parallel region. Outside, activations [S, B, H] are
// whole on every tp rank, or, with sequence parallelism, cut along S: rank r holds rows [r n, (r +
// 1) n), n = ceil(S / tp), the rows beyond S being zeros. Inside, every rank works on all S rows
// with its slice of the weights.
//
//   function   forward at   backward at   sequence parallel   else
//   gather     the entry    the exit      all-gather          identity
//   reduce     the exit     the entry     reduce-scatter      all-reduce
//
// Both can be begun and ended apart, so that products which do not need them run meanwhile; and
// where the axis moves pieces, the product before or behind works piece by piece: on what is there,
// on what can leave (parallel_linear.h).
//
// Sources: Shoeybi et al., "Megatron-LM", 2019, section 3 (f and g); Korthikanti et al., "Reducing
// Activation Recomputation in Large Transformer Models", 2022, section 4.2.2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "comm/communicator.h"

namespace tptrain::tensor_parallel {

enum class SequenceParallel { off, on };

/// [S, B, X] on its way to this rank.
class GatheredSequence {
 public:
  /// Already whole.
  explicit GatheredSequence(at::Tensor whole);
  /// `own` [n, B, X] is this rank's piece of what `gather` brings, of which `length` rows count.
  /// `scale`: of FP8, else undefined.
  GatheredSequence(std::unique_ptr<comm::PiecewiseGather> gather, at::Tensor own, int tp_rank,
                   int64_t length, at::Tensor scale);

  int64_t length() const { return length_; }
  int64_t batch() const { return memory().size(1); }
  at::TensorOptions options() const { return memory().options(); }
  /// fp32 [1] where what comes is FP8 (kernels/fp8.h): its values are what comes times this.
  const at::Tensor& scale() const { return scale_; }

  /// All of it: orders the current stream behind the last piece. Contiguous.
  at::Tensor whole();
  /// work(first row, rows [n, B, X]) for consecutive rows that cover the sequence, in the order in
  /// which they arrive, this rank's own first; all at once where that is no slower.
  void for_each_part(const std::function<void(int64_t, const at::Tensor&)>& work);

 private:
  const at::Tensor& memory() const { return gather_ ? gather_->whole() : own_; }

  std::unique_ptr<comm::PiecewiseGather> gather_;  // null: own_ is all
  at::Tensor own_;                                 // undefined: parts do not pay
  int tp_size_ = 1;
  int tp_rank_ = 0;
  int64_t length_;
  at::Tensor scale_;
};

/// A sum over tp under way.
class ReducedSequence {
 public:
  /// Ends the reduction: [rows, B, X], ordered into the current stream. Once.
  at::Tensor finish();

 private:
  friend class SequenceRegion;
  std::unique_ptr<comm::PiecewiseReduce> reduce_;
  at::Tensor result_;  // where reduce_ is null
};

class SequenceRegion {
 public:
  /// Of sequences of `length` positions. `tp` must outlive it. With one rank everything is the
  /// identity.
  SequenceRegion(comm::Communicator& tp, int64_t length, SequenceParallel sequence_parallel);

  int64_t length() const { return length_; }
  bool sliced() const { return sliced_; }
  /// Rows of S that this rank holds outside, padding included, and the position of the first.
  int64_t rows() const;
  int64_t first_position() const;
  /// Of these rows, those within the sequence.
  int64_t counted_rows() const;

  /// [rows, B, X] -> [S, B, X]. Collective over tp where sliced.
  at::Tensor gather(const at::Tensor& slice) const;
  /// The same, begun; `slice` may be let go of. Collective over tp where sliced. `scale`: of FP8
  /// rows, the same on every tp rank; only where sliced.
  GatheredSequence start_gather(at::Tensor slice, at::Tensor scale = {}) const;
  /// [S, B, X] of partial sums -> their sum over tp, [rows, B, X]. May work in the memory of
  /// `partial`, which must be fresh. Collective over tp.
  at::Tensor reduce(at::Tensor partial) const;
  /// The same of sizes [S, B, width] that are yet to be made: product(first row, rows [n, B,
  /// width]) writes this rank's terms of consecutive rows that cover the sequence, those that leave
  /// first before this rank's own. Collective over tp.
  ReducedSequence start_reduce(
      int64_t batch, int64_t width, const at::TensorOptions& options,
      const std::function<void(int64_t, const at::Tensor&)>& product) const;

 private:
  comm::Communicator& tp_;
  int64_t length_;
  bool sliced_;
};

}  // namespace tptrain::tensor_parallel
