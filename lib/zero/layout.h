// Where parameters and gradients lie: the arithmetic of buckets, slots and staging, without any
// memory. ParamBuckets allocates by it, bucket_memory() counts by it.
#pragma once

#include <cstdint>
#include <vector>

#include "parameters/parameter_store.h"
#include "zero/allocation.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

inline constexpr int kSlots = 4;  // the ends, two of the layers, the head of a tied model

/// The buckets of `blocks` in block order, of each those that train first, and of them the
/// tp_sharded ones, those of FP8 (where they are apart), then matrices of `rule` (null: none)
/// before the rest, those whose gradients are bf16 (of the layers' matrices, where `gradient_dtype`
/// is) before others; empty ones are left out. Padded to a multiple of dp, a table alone to one of
/// dp rows, FP8 to one of dp * kFp8Shard. Data and main_grad are undefined. Throws InternalError
/// where blocks break their contract.
std::vector<Bucket> lay_out(const std::vector<parameters::ParameterBlock>& blocks, int dp_size,
                            const optim::UpdateRule* rule,
                            at::ScalarType gradient_dtype = at::kFloat,
                            Fp8Matrices fp8_matrices = Fp8Matrices::with_others);

/// The bucket is one vocab-parallel table and nothing else: its shards are whole rows.
bool is_table(const Bucket& bucket);

/// Whether the gradients of a look-up of `tokens` tokens on each dp rank go over dp as rows of
/// `dtype`: where those of all ranks, which each receives and finds room for, are at most half of
/// what the table's fp32 gradient is.
bool lookup_goes_as_rows(const Bucket& table, int dp_size, int64_t tokens, at::ScalarType dtype);

/// A slice of the block's tp_sharded bucket that trains of which other tp ranks hold copies.
struct CopiedSlice {
  parameters::Parameter* parameter = nullptr;
  const parameters::NamedSlice* slice = nullptr;
  int64_t staging_begin = 0;  // of its `parts` places in the block's staging
};
std::vector<CopiedSlice> copied_slices(const parameters::ParameterBlock& block);
/// Elements of the block's staging: the same on every tp rank.
int64_t staging_numel(const parameters::ParameterBlock& block);

/// Blocks have memory of their own, or take slots in turn.
enum class Buffers { own, shared };
int buffer_count(const std::vector<parameters::ParameterBlock>& blocks, Buffers buffers);
/// Index of the block's buffer.
int buffer_of(const std::vector<parameters::ParameterBlock>& blocks, int block, Buffers buffers);
/// The parameters' values: a range for each bucket, in their order.
parameters::StoreLayout store_layout(const std::vector<parameters::ParameterBlock>& blocks,
                                     const std::vector<Bucket>& buckets, Buffers buffers);

/// Elements of gradients that one buffer must have room for, and the memory for it: tensors of
/// their own for each type, the staging behind what is replicated.
struct GradientBuffer {
  int64_t sharded = 0;
  int64_t sharded_bf16 = 0;  // beside them; all else is fp32
  int64_t replicated = 0;
  int64_t replicated_and_staging = 0;
  Allocation of_sharded() const { return {.shape = {sharded}, .dtype = at::kFloat}; }
  Allocation of_sharded_bf16() const { return {.shape = {sharded_bf16}, .dtype = at::kBFloat16}; }
  Allocation of_replicated() const {
    return {.shape = {replicated_and_staging}, .dtype = at::kFloat};
  }
};
std::vector<GradientBuffer> gradient_buffers(const std::vector<parameters::ParameterBlock>& blocks,
                                             const std::vector<Bucket>& buckets, Buffers buffers);

}  // namespace tptrain::zero
