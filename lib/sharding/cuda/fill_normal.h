// Initial values made where they are wanted: the bits of the CPU's. Not called in a build without
// CUDA (absent.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "sharding/shard_spec.h"

namespace tptrain::sharding::cuda {

/// out (1-D fp32, CUDA): std times the normal numbers of the elements begin, begin + 1, .. of the
/// slice.
void fill_normal(at::Tensor& out, const ShardSpec& spec, int64_t begin, double std,
                 std::array<uint32_t, 2> key);

}  // namespace tptrain::sharding::cuda
