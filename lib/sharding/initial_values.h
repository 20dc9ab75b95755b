// The values that training begins with, the same whatever the layout.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "sharding/shard_spec.h"

namespace tptrain::sharding {

/// Layout-independent initial values: a function of (seed, tensor name, global element index)
/// alone.
struct Init {
  enum class Kind { zeros, ones, normal, uniform } kind = Kind::zeros;
  double std = 0.0;    // of normal
  double bound = 0.0;  // of uniform: values in [-bound, bound)
};

/// Fills `out` (1-D, CPU or CUDA, the elements [begin, end) of the slice in row-major order) with
/// the initial values of `init`, the same bits on either.
void fill_initial(at::Tensor& out, const ShardSpec& spec, int64_t begin, int64_t end,
                  const Init& init, uint64_t seed);

}  // namespace tptrain::sharding
