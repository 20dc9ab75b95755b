// Arithmetic of slices of row-major tensors.
#include "sharding/shard_spec.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::sharding {
namespace {

int64_t product(const std::vector<int64_t>& sizes, size_t first, size_t last) {
  int64_t result = 1;
  for (size_t i = first; i < last; ++i) result *= sizes[i];
  return result;
}

// A ShardSpec is a plain aggregate, so it is checked where it is used, not only where it is made.
void check(const ShardSpec& spec) {
  for (const int64_t size : spec.global_shape) {
    if (size >= 0) continue;
    throw InternalError(
        problem(cat("shape of '", spec.name, "' is [", join(spec.global_shape), "]"))
            .must("hold no negative size"));
  }
  if (spec.whole()) return;
  const auto dims = static_cast<int64_t>(spec.global_shape.size());
  if (spec.dim >= dims) {
    throw InternalError(problem(cat("'", spec.name, "' is cut along dim ", spec.dim))
                            .must(cat("be cut along one of its ", dims, " dims")));
  }
  const int64_t size = spec.global_shape[spec.dim];
  if (spec.begin < 0 || spec.begin > spec.end || spec.end > size) {
    throw InternalError(problem(cat("slice [", spec.begin, ", ", spec.end, ") of dim ", spec.dim,
                                    " of '", spec.name, "'"))
                            .must(cat("lie within [0, ", size, ")")));
  }
}

}  // namespace

std::vector<int64_t> ShardSpec::local_shape() const {
  check(*this);
  std::vector<int64_t> shape = global_shape;
  if (!whole()) shape[dim] = end - begin;
  return shape;
}

int64_t ShardSpec::local_numel() const {
  const std::vector<int64_t> shape = local_shape();
  return product(shape, 0, shape.size());
}

int64_t ShardSpec::global_numel() const {
  check(*this);
  return product(global_shape, 0, global_shape.size());
}

ShardSpec whole_tensor(std::string name, std::vector<int64_t> global_shape) {
  ShardSpec spec{.name = std::move(name), .global_shape = std::move(global_shape)};
  check(spec);
  return spec;
}

ShardSpec slice_of(std::string name, std::vector<int64_t> global_shape, int64_t dim, int64_t begin,
                   int64_t end) {
  ShardSpec spec{.name = std::move(name),
                 .global_shape = std::move(global_shape),
                 .dim = dim,
                 .begin = begin,
                 .end = end};
  if (dim < 0) {
    throw InternalError(problem(cat("'", spec.name, "' is cut along dim ", dim))
                            .must("be cut along one of its dims (whole_tensor() cuts nothing)"));
  }
  check(spec);
  return spec;
}

std::vector<Run> runs_of(const ShardSpec& spec, int64_t begin, int64_t end) {
  const int64_t numel = spec.local_numel();
  if (begin < 0 || begin > end || end > numel) {
    throw InternalError(
        problem(cat("elements [", begin, ", ", end, ") of a slice of '", spec.name, "'"))
            .must(cat("lie within [0, ", numel, ")")));
  }
  if (begin == end) return {};
  if (spec.whole()) return {{begin, begin, end - begin}};

  // The slice is `outer` blocks of `local_block` consecutive elements, one every `global_block`
  // elements of the global tensor.
  const int64_t inner = product(spec.global_shape, spec.dim + 1, spec.global_shape.size());
  const int64_t local_block = (spec.end - spec.begin) * inner;
  const int64_t global_block = spec.global_shape[spec.dim] * inner;
  if (local_block == global_block) return {{begin, begin, end - begin}};

  std::vector<Run> runs;
  runs.reserve((end - 1) / local_block - begin / local_block + 1);
  for (int64_t at = begin; at < end;) {
    const int64_t block = at / local_block;
    const int64_t stop = std::min(end, (block + 1) * local_block);
    const int64_t global = block * global_block + spec.begin * inner + (at - block * local_block);
    runs.push_back({at, global, stop - at});
    at = stop;
  }
  return runs;
}

}  // namespace tptrain::sharding
