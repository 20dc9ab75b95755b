// A bucket and this rank's part in it: views and state that gathering, reduction and the update
// work on. Private to this folder.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "zero/allocation.h"
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
  at::Tensor main_grad_shard;     // [shard] of bucket->main_grad: where reduce_scatter leaves its
                                  // result
  at::Tensor grad_shard;    // [shard] the step's reduced gradient: own accumulator, or the above
  at::Tensor gradient;      // [held] what the update reads: grad_shard, or all of main_grad
  at::Tensor written_rows;  // of the one parameter: uint8 [rows], 0 where the gradient's row holds
                            // zeros alone (WrittenRows); undefined: not known

  // Of its parameters that ask for their largest magnitude, in their order, int32 [their number]
  // each, the bits of fp32; undefined where there is none or casts find it themselves.
  at::Tensor held_amax;      // of what this rank holds: the update's
  at::Tensor gathered_amax;  // [dp, ..] those of all ranks; undefined where this rank holds all
  at::Tensor amax;           // of the whole: theirs, or the same as held_amax; undefined where
                             // it comes as FP8

  // What goes over dp as bf16, in memory shared with the buckets of the same slot; undefined:
  // main_grad goes.
  at::Tensor sent;        // [numel]
  at::Tensor sent_shard;  // [shard] of it

  int64_t shard_numel() const { return shard_end - shard_begin; }
  /// The shard's part of a [held] tensor.
  at::Tensor shard_of(const at::Tensor& held) const {
    return held.narrow(0, shard_begin - held_begin, shard_numel());
  }
};

/// What a rank allocates for one bucket beside the buffers of parameters and gradients. Whatever of
/// BucketState is not here is a view of those.
struct BucketAllocations {
  std::optional<Allocation> master;      // else the parameters themselves
  std::vector<Allocation> slots;         // of the update rule
  std::optional<Allocation> grad_shard;  // of a bucket that accumulates
  std::optional<Allocation> held_amax;
  std::optional<Allocation> gathered_amax, amax;  // where this rank holds a part
};
/// Of the bucket's parameters, those that ask for their largest magnitude: the order of amax.
std::vector<parameters::Parameter*> wanting_amax(const Bucket& bucket);
/// The parameter's word of held_amax; undefined where there is none.
at::Tensor held_amax_of(const BucketState& state, const parameters::Parameter& parameter);

/// Whether the bucket comes over dp as FP8 (fp8_shards.h).
bool is_gathered_as_fp8(const Bucket& bucket, const StateLayout& layout, int dp_size);

BucketAllocations bucket_allocations(const Bucket& bucket, const StateLayout& layout, int dp_size);

/// The bf16 memory through which the buckets of a slot go over dp.
struct SentAllocations {
  Allocation sharded, replicated;
};
/// By slot; none where gradients go as they are.
std::vector<SentAllocations> sent_allocations(const std::vector<parameters::ParameterBlock>& blocks,
                                              const std::vector<Bucket>& buckets,
                                              const StateLayout& layout);

/// One for each bucket, in their order; allocates state (zeroed).
std::vector<BucketState> make_states(ParamBuckets& buckets, const StateLayout& layout);

}  // namespace tptrain::zero
