// Layout of the flat buffers. Everything here is arithmetic and allocation; nothing communicates.
#include "zero/param_buckets.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::zero {
namespace {

using sharding::NamedSlice;
using sharding::Parameter;
using sharding::Placement;

std::string_view placement_name(Placement placement) {
  return placement == Placement::tp_sharded ? "tp_sharded" : "tp_replicated";
}

// The contract of Parameter::slices. A gap would be memory that is trained but never saved.
void check_slices(const Parameter& parameter) {
  int64_t next = 0;
  for (const NamedSlice& slice : parameter.slices) {
    if (slice.offset != next) {
      throw InternalError(problem(cat("slice '", slice.spec.name, "' of parameter '",
                                      parameter.name, "' begins at element ", slice.offset))
                              .must(cat("begin at ", next, ", where the slice before it ends")));
    }
    next += slice.spec.local_numel();
  }
  if (next != parameter.numel()) {
    throw InternalError(
        problem(cat("the slices of parameter '", parameter.name, "' cover ", next, " elements"))
            .must(cat("cover all its ", parameter.numel())));
  }
}

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

Bucket lay_out(const sharding::ParameterBlock& block, int block_index, Placement placement,
               int dp_size) {
  Bucket bucket;
  bucket.name = cat(block.name, ", ", placement_name(placement));
  bucket.block = block_index;
  bucket.placement = placement;
  int64_t next = 0;
  for (Parameter* parameter : block.parameters) {
    if (parameter->placement != placement) continue;
    check_slices(*parameter);
    bucket.parameters.push_back(parameter);
    bucket.offsets.push_back(next);
    next += parameter->numel();
  }
  bucket.numel = round_up(next, dp_size);
  return bucket;
}

void allocate_and_bind(Bucket& bucket, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  bucket.data = at::zeros({bucket.numel}, options);
  bucket.main_grad = at::zeros({bucket.numel}, options);
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    Parameter& parameter = *bucket.parameters[i];
    const int64_t offset = bucket.offsets[i];
    const auto view_of = [&](const at::Tensor& flat) {
      return flat.narrow(0, offset, parameter.numel()).view(parameter.shape);
    };
    parameter.data = view_of(bucket.data);
    parameter.main_grad = view_of(bucket.main_grad);
  }
}

}  // namespace

ParamBuckets::ParamBuckets(const std::vector<sharding::ParameterBlock>& blocks, DpPosition dp,
                           at::Device device)
    : dp_(dp) {
  if (dp.size < 1 || dp.rank < 0 || dp.rank >= dp.size) {
    throw InternalError(problem(cat("dp rank ", dp.rank, " of ", dp.size)).must("lie within it"));
  }
  std::set<const Parameter*> seen;
  for (const sharding::ParameterBlock& block : blocks) {
    for (const Parameter* parameter : block.parameters) {
      if (seen.insert(parameter).second) continue;
      // Two homes for one value would be two gradients of which one is lost.
      throw InternalError(
          problem(cat("parameter '", parameter->name, "' stands a second time, in block '",
                      block.name, "'"))
              .must("stand in one block only (a tied table in the first that uses it)"));
    }
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    for (const Placement placement : {Placement::tp_sharded, Placement::tp_replicated}) {
      Bucket bucket = lay_out(blocks[i], static_cast<int>(i), placement, dp.size);
      if (bucket.numel == 0) continue;  // numel of an empty tensor would be a collective of nothing
      allocate_and_bind(bucket, device);
      buckets_.push_back(std::move(bucket));
    }
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
