// A bucket and this rank's part in it: views and state that gathering, reduction and the update
// work on. Private to this folder.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "zero/param_buckets.h"
#include "zero/state_layout.h"

namespace tptrain::zero {

/// Of a bucket that does not train: what it holds are its weights alone, in the compute dtype; of
/// state no more than `master`, a view of them (stage 3: its shard), which is loaded and saved.
struct BucketState {
  Bucket* bucket = nullptr;
  // Of this dp rank: what it reduces, counts in the norm and saves, in every stage.
  int64_t shard_begin = 0;
  int64_t shard_end = 0;
  // What it updates and holds masters and slots of: stage 0 all, else its shard.
  int64_t held_begin = 0;
  int64_t held_end = 0;

  at::Tensor master;              // [held] own memory, or the held part of bucket->data
  std::vector<at::Tensor> slots;  // [held] each, of the update rule for the bucket's unit
  at::Tensor data_shard;          // [shard] of bucket->data
  at::Tensor grad_piece;  // [shard] of bucket->main_grad: where reduce_scatter leaves its result
  at::Tensor grad_shard;  // [shard] the step's reduced gradient: own accumulator, or grad_piece
  at::Tensor gradient;    // [held] what the update reads: grad_shard, or all of main_grad

  // bf16 for the way over dp, shared with the buckets of the same slot; undefined: main_grad goes.
  at::Tensor sent;        // [numel]
  at::Tensor sent_piece;  // [shard] of it

  int64_t shard_numel() const { return shard_end - shard_begin; }
  /// The shard's part of a [held] tensor.
  at::Tensor shard_of(const at::Tensor& held) const {
    return held.narrow(0, shard_begin - held_begin, shard_numel());
  }
};

/// One for each bucket, in their order; allocates state (zeroed).
std::vector<BucketState> make_states(ParamBuckets& buckets, const StateLayout& layout);

}  // namespace tptrain::zero
