// Where parameters lie: the arithmetic of buckets, slots and staging, without any memory.
// ParamBuckets allocates by it, bucket_memory() counts by it.
#pragma once

#include <cstdint>
#include <vector>

#include "sharding/parameter.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

inline constexpr int kSlots = 4;  // the ends, two of the layers, the head of a tied model

/// The buckets of `blocks` in block order, of each those that train first, and of them the
/// tp_sharded one; empty ones are left out.
/// Padded to a multiple of dp, a table alone to one of dp rows. Data and main_grad are undefined.
/// Throws InternalError where blocks break their contract.
std::vector<Bucket> lay_out(const std::vector<sharding::ParameterBlock>& blocks, int dp_size);

/// The bucket is one vocab-parallel table and nothing else: its shards are whole rows.
bool is_table(const Bucket& bucket);

/// Whether the gradients of a look-up of `tokens` tokens on each dp rank travel as rows of `dtype`:
/// where those of all ranks, which each receives and finds room for, are at most half of what the
/// table's fp32 gradient is.
bool lookup_travels_as_rows(const Bucket& table, int dp_size, int64_t tokens, at::ScalarType dtype);

/// A slice of the block's tp_sharded bucket that trains of which other tp ranks hold copies.
struct CopiedSlice {
  sharding::Parameter* parameter = nullptr;
  const sharding::NamedSlice* slice = nullptr;
  int64_t staging_begin = 0;  // of its `parts` places in the block's staging
};
std::vector<CopiedSlice> copied_slices(const sharding::ParameterBlock& block);
/// Elements of the block's staging: the same on every tp rank.
int64_t staging_numel(const sharding::ParameterBlock& block);

/// Elements that one buffer of memory must have room for: a block's own, or a slot.
struct BufferSize {
  int64_t sharded = 0;
  int64_t replicated = 0;
  int64_t replicated_and_staging = 0;  // of gradients
  int64_t frozen_sharded = 0;          // of what does not train; has no gradients
  int64_t frozen_replicated = 0;
  int64_t data() const { return sharded + replicated + frozen_sharded + frozen_replicated; }
  int64_t gradients() const { return sharded + replicated_and_staging; }
};
enum class Buffers { own, shared };
int buffer_count(const std::vector<sharding::ParameterBlock>& blocks, Buffers buffers);
/// Index of the block's buffer.
int buffer_of(const std::vector<sharding::ParameterBlock>& blocks, int block, Buffers buffers);
std::vector<BufferSize> buffer_sizes(const std::vector<sharding::ParameterBlock>& blocks,
                                     const std::vector<Bucket>& buckets, Buffers buffers);

}  // namespace tptrain::zero
