// Matrices that FP8 products alone read, gathered over dp as FP8 (stage 3): each rank casts its
// shard of the masters with the scale of the whole tensor, whose largest magnitude the ranks of dp
// and tp find together once an update, and bytes travel. What the products read are the bits that a
// cast of the gathered values would give.
//
// Memory: that of the bucket's values, [numel] bf16. The first half of it is the gathered rows,
// [numel] bytes; in the second half the own shard is rounded to bf16 before its cast. Columns are
// made where they are read.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "zero/bucket_state.h"

namespace tptrain::zero {

class Fp8Shards {
 public:
  /// Takes those buckets of `states` that are FP8 where they are gathered, and binds their
  /// parameters' `fp8`. All must outlive it.
  Fp8Shards(std::vector<BucketState>& states, const StateLayout& layout, comm::Communicator& tp,
            comm::Communicator& dp);

  bool empty() const { return shards_.empty(); }
  bool takes(const BucketState& state) const { return of(state) != nullptr; }
  /// The masters change, or have changed: scales are to be found anew.
  void invalidate();
  /// Begins to gather the bucket from masters that are complete in the current stream. Collective
  /// over dp; since invalidate() for the first time over tp as well.
  std::unique_ptr<comm::Work> start_gather(const BucketState& state);

 private:
  /// A parameter's part of the own shard, as rows of kFp8Shard elements.
  struct Piece {
    int64_t parameter = 0;
    at::Tensor values;  // bf16
    at::Tensor bytes;   // where its cast goes
  };
  struct Shard {
    const BucketState* state = nullptr;
    at::Tensor values;  // [shard] bf16
    at::Tensor bytes;   // [numel] e4m3
    at::Tensor own;     // [shard] of them
    at::Tensor amax;    // int32 [parameters]
    at::Tensor scales;  // fp32 [parameters, 4]
    std::vector<Piece> pieces;
    bool scales_known = false;
  };
  static Shard shard_of(BucketState& state);
  const Shard* of(const BucketState& state) const;
  void find_scales(Shard& shard);

  comm::Communicator& tp_;
  comm::Communicator& dp_;
  std::vector<Shard> shards_;
};

}  // namespace tptrain::zero
