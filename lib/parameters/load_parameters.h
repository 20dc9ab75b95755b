// First values of parameters, from a source or from a seed, into whatever memory holds them: the
// weights themselves, or the masters of this rank's shard. Each rank reads and draws its own alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "parameters/parameter.h"
#include "sharding/state_dict.h"

namespace tptrain::parameters {

/// Where a stretch of a named slice has its values.
struct SliceValues {
  const NamedSlice* slice = nullptr;
  int64_t begin = 0;  // element of the slice, row-major
  at::Tensor values;  // 1-D, contiguous: those from there on; a view of the live memory
};

/// Master values, rounded to the type of their memory. Takes no more memory than a chunk of
/// sharding::kStateChunkElements. Throws what the source throws (CheckpointError), on the rank that
/// meets it alone.
void load_parameters(const std::vector<SliceValues>& into, const sharding::TensorSource& source);

/// What each slice's Init says for `seed`, the same on every layout; likewise.
void draw_parameters(const std::vector<SliceValues>& into, uint64_t seed);

}  // namespace tptrain::parameters
