// Memory of the flat buffers and the views into it. Nothing here communicates.
#include "zero/param_buckets.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "zero/layout.h"

namespace tptrain::zero {
namespace {

using sharding::NamedSlice;
using sharding::Parameter;
using sharding::Placement;

struct Buffer {
  at::Tensor sharded;
  at::Tensor replicated;  // of gradients: the staging behind it
  at::Tensor frozen_sharded;
  at::Tensor frozen_replicated;
};

std::vector<Buffer> allocate_data(const std::vector<BufferSize>& sizes,
                                  const at::TensorOptions& options) {
  std::vector<Buffer> buffers;
  for (const BufferSize& size : sizes) {
    buffers.push_back({.sharded = at::zeros({size.sharded}, options),
                       .replicated = at::zeros({size.replicated}, options),
                       .frozen_sharded = at::zeros({size.frozen_sharded}, options),
                       .frozen_replicated = at::zeros({size.frozen_replicated}, options)});
  }
  return buffers;
}

std::vector<Buffer> allocate_gradients(const std::vector<BufferSize>& sizes,
                                     const at::TensorOptions& options) {
  std::vector<Buffer> buffers;
  for (const BufferSize& size : sizes) {
    buffers.push_back({.sharded = at::zeros({size.sharded}, options),
                     .replicated = at::zeros({size.replicated_and_staging}, options),
                     .frozen_sharded = {},
                     .frozen_replicated = {}});
  }
  return buffers;
}

at::Tensor part_for(const Buffer& buffer, const Bucket& bucket) {
  const bool sharded = bucket.placement == Placement::tp_sharded;
  const at::Tensor& memory = bucket.trains
                                 ? (sharded ? buffer.sharded : buffer.replicated)
                                 : (sharded ? buffer.frozen_sharded : buffer.frozen_replicated);
  return memory.narrow(0, 0, bucket.numel);
}

void bind(Bucket& bucket) {
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    Parameter& parameter = *bucket.parameters[i];
    const auto view_of = [&](const at::Tensor& flat) {
      return flat.narrow(0, bucket.offsets[i], parameter.numel()).view(parameter.shape);
    };
    parameter.data = view_of(bucket.data);
    parameter.main_grad = bucket.trains ? view_of(bucket.main_grad) : at::Tensor();
  }
}

// `gradients`: the buffer's replicated part; `bucket`: the block's tp_replicated one, or none.
TpRegion region_of(const at::Tensor& gradients, const Bucket* bucket, int64_t staging) {
  const int64_t numel = bucket == nullptr ? 0 : bucket->numel;
  const int64_t partial_begin = bucket == nullptr ? 0 : bucket->partial_begin;
  TpRegion region;
  if (partial_begin < numel) {
    region.partial = gradients.narrow(0, partial_begin, numel - partial_begin);
  }
  if (staging > 0) region.staging = gradients.narrow(0, numel, staging);
  if (partial_begin < numel + staging) {
    region.whole = gradients.narrow(0, partial_begin, numel + staging - partial_begin);
  }
  return region;
}

void check_options(DpPosition dp, const ParamBuckets::Options& options) {
  if (dp.size < 1 || dp.rank < 0 || dp.rank >= dp.size) {
    throw InternalError(problem(cat("dp rank ", dp.rank, " of ", dp.size)).must("lie within it"));
  }
  if (options.zero_stage < 0 || options.zero_stage > 3) {
    throw InternalError(problem(cat("ZeRO stage ", options.zero_stage)).must("be 0, 1, 2 or 3"));
  }
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16) {
    throw InternalError(
        problem(cat("parameters of dtype ", at::toString(options.dtype))).must("be fp32 or bf16"));
  }
}

}  // namespace

ParamBuckets::ParamBuckets(const std::vector<sharding::ParameterBlock>& blocks, DpPosition dp,
                           const Options& options)
    : blocks_(&blocks), dp_(dp), options_(options) {
  check_options(dp, options);
  buckets_ = lay_out(blocks, dp.size);
  const Buffers data_buffers = options.zero_stage == 3 ? Buffers::shared : Buffers::own;
  const Buffers grad_buffers = options.zero_stage >= 2 ? Buffers::shared : Buffers::own;
  const auto on_device = at::TensorOptions().device(options.device);
  const std::vector<Buffer> data =
      allocate_data(buffer_sizes(blocks, buckets_, data_buffers), on_device.dtype(options.dtype));
  const std::vector<Buffer> gradients =
      allocate_gradients(buffer_sizes(blocks, buckets_, grad_buffers), on_device.dtype(at::kFloat));
  std::vector<const Bucket*> replicated(blocks.size(), nullptr);
  for (Bucket& bucket : buckets_) {
    bucket.data = part_for(data[buffer_of(blocks, bucket.block, data_buffers)], bucket);
    if (bucket.trains)
      bucket.main_grad = part_for(gradients[buffer_of(blocks, bucket.block, grad_buffers)], bucket);
    bind(bucket);
    if (bucket.trains && bucket.placement == Placement::tp_replicated)
      replicated[bucket.block] = &bucket;
  }
  for (int b = 0; b < static_cast<int>(blocks.size()); ++b) {
    tp_regions_.push_back(region_of(gradients[buffer_of(blocks, b, grad_buffers)].replicated,
                                    replicated[b], staging_numel(blocks[b])));
  }
}

std::pair<int64_t, int64_t> ParamBuckets::shard_range(const Bucket& bucket, int rank) const {
  if (rank < 0 || rank >= dp_.size) {
    throw InternalError(problem(cat("shard of dp rank ", rank)).must(cat("be one of ", dp_.size)));
  }
  const int64_t length = bucket.numel / dp_.size;
  return {rank * length, (rank + 1) * length};
}

std::vector<BucketPiece> pieces_of(const Bucket& bucket, int64_t begin, int64_t end) {
  if (begin < 0 || begin > end || end > bucket.numel) {
    throw InternalError(
        problem(cat("elements [", begin, ", ", end, ") of bucket '", bucket.name, "'"))
            .must(cat("lie within [0, ", bucket.numel, ")")));
  }
  std::vector<BucketPiece> pieces;
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    Parameter& parameter = *bucket.parameters[i];
    for (const NamedSlice& slice : parameter.slices) {
      const int64_t slice_at = bucket.offsets[i] + slice.offset;  // the slice's place in the bucket
      const int64_t first = std::max(begin, slice_at);
      const int64_t last = std::min(end, slice_at + slice.spec.local_numel());
      if (first >= last) continue;
      pieces.push_back({.slice = &slice,
                        .parameter = &parameter,
                        .bucket_begin = first,
                        .slice_begin = first - slice_at,
                        .count = last - first});
    }
  }
  return pieces;
}

}  // namespace tptrain::zero
