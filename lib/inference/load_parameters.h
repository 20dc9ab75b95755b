// Parameters alone, for inference: master weights from a source straight into the buckets, piece by
// piece. No gradients, no optimizer.
#pragma once

#include "sharding/state_dict.h"
#include "zero/param_buckets.h"

namespace tptrain::inference {

/// Fills the data of every bucket; what is padding stays as it is. Each rank reads its own slices
/// only. Throws what the source throws (CheckpointError).
void load_parameters(zero::ParamBuckets& buckets, const sharding::TensorSource& source);

}  // namespace tptrain::inference
