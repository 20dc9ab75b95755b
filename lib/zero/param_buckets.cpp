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

using parameters::NamedSlice;
using parameters::Parameter;
using parameters::ParameterBlock;
using parameters::Placement;

struct Gradients {
  at::Tensor sharded;
  at::Tensor sharded_bf16;
  at::Tensor replicated;  // and the staging behind it

  const at::Tensor& of(const Bucket& bucket) const {
    if (bucket.placement == Placement::tp_replicated) return replicated;
    return bucket.gradient_dtype == at::kBFloat16 ? sharded_bf16 : sharded;
  }
};

std::vector<Gradients> allocate(const std::vector<GradientBuffer>& sizes, at::Device device) {
  std::vector<Gradients> buffers;
  for (const GradientBuffer& size : sizes)
    buffers.push_back({.sharded = size.of_sharded().zeros(device),
                       .sharded_bf16 = size.of_sharded_bf16().zeros(device),
                       .replicated = size.of_replicated().zeros(device)});
  return buffers;
}

void bind_gradients(Bucket& bucket) {
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    Parameter& parameter = *bucket.parameters[i];
    parameter.main_grad = at::Tensor();
    if (!bucket.trains) continue;
    parameter.main_grad =
        bucket.main_grad.narrow(0, bucket.offsets[i], parameter.numel()).view(parameter.shape);
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

const ParamBuckets::Options& checked(DpPosition dp, const ParamBuckets::Options& options) {
  if (dp.size < 1 || dp.rank < 0 || dp.rank >= dp.size) {
    throw InternalError(problem(cat("dp rank ", dp.rank, " of ", dp.size)).must("lie within it"));
  }
  if (options.zero_stage < 0 || options.zero_stage > 3) {
    throw InternalError(problem(cat("ZeRO stage ", options.zero_stage)).must("be 0, 1, 2 or 3"));
  }
  return options;
}

}  // namespace

ParamBuckets::ParamBuckets(const std::vector<ParameterBlock>& blocks, DpPosition dp,
                           const Options& options)
    : blocks_(&blocks),
      dp_(dp),
      options_(checked(dp, options)),
      buckets_(
          lay_out(blocks, dp.size, options.rule, options.gradient_dtype, options.fp8_matrices)),
      store_(
          store_layout(blocks, buckets_, options.zero_stage == 3 ? Buffers::shared : Buffers::own),
          {.device = options.device, .dtype = options.dtype}) {
  const Buffers of_gradients = options.zero_stage >= 2 ? Buffers::shared : Buffers::own;
  const std::vector<Gradients> gradients =
      allocate(gradient_buffers(blocks, buckets_, of_gradients), options.device);
  std::vector<const Bucket*> replicated(blocks.size(), nullptr);
  for (size_t i = 0; i < buckets_.size(); ++i) {
    Bucket& bucket = buckets_[i];
    bucket.data = store_.range(i);
    if (bucket.trains) {
      const Gradients& buffer = gradients[buffer_of(blocks, bucket.block, of_gradients)];
      bucket.main_grad = buffer.of(bucket).narrow(0, bucket.gradient_begin, bucket.numel);
      if (bucket.placement == Placement::tp_replicated) replicated[bucket.block] = &bucket;
    }
    bind_gradients(bucket);
  }
  for (int b = 0; b < static_cast<int>(blocks.size()); ++b) {
    tp_regions_.push_back(region_of(gradients[buffer_of(blocks, b, of_gradients)].replicated,
                                    replicated[b], staging_numel(blocks[b])));
  }
}

const std::string& ParamBuckets::parameter_name(int64_t index) const {
  int64_t left = index;
  for (const ParameterBlock& block : *blocks_) {
    const auto count = static_cast<int64_t>(block.parameters.size());
    if (left >= 0 && left < count) return block.parameters[static_cast<size_t>(left)]->name;
    left -= count;
  }
  throw InternalError(
      problem(cat("name of parameter ", index)).must(cat("be one of ", index - left, ", from 0")));
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
