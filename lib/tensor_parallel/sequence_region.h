// Communication at the borders of a tensor-parallel region. Outside, activations [S, B, H] are
// whole on every tp rank, or, with sequence parallelism, cut along S: rank r holds rows [r n, (r +
// 1) n), n = ceil(S / tp), the rows beyond S being zeros. Inside, every rank works on all S rows
// with its slice of the weights.
//
//   function   forward at   backward at   sequence parallel   else
//   gather     the entry    the exit      all-gather          identity
//   reduce     the exit     the entry     reduce-scatter      all-reduce
//
// Sources: Shoeybi et al., "Megatron-LM", 2019, section 3 (f and g); Korthikanti et al., "Reducing
// Activation Recomputation in Large Transformer Models", 2022, section 4.2.2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "comm/communicator.h"

namespace tptrain::tensor_parallel {

enum class SequenceParallel { off, on };

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

  /// [rows, B, X] -> [S, B, X]. Collective over tp where sliced.
  at::Tensor gather(const at::Tensor& slice) const;
  /// [S, B, X] of partial sums -> their sum over tp, [rows, B, X]. May work in the memory of
  /// `partial`, which must be fresh. Collective over tp.
  at::Tensor reduce(at::Tensor partial) const;

 private:
  comm::Communicator& tp_;
  int64_t length_;
  bool sliced_;
};

}  // namespace tptrain::tensor_parallel
