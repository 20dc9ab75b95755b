// Bytes that ParamBuckets and ZeroOptimizer allocate for good on one rank, counted from the
// declarations that they allocate by: for forecasts without a device. Not here: what a step
// allocates and frees again, and communication libraries.
#pragma once

#include <cstdint>
#include <vector>

#include "parameters/parameter.h"
#include "zero/options.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

struct BucketMemory {
  int64_t parameters = 0;       // in the compute dtype, where each block has memory of its own;
                                // stage 3: the shard of those that do not train
  int64_t gradients = 0;        // main_grad of each block, and accumulating shards (fp32)
  int64_t masters = 0;          // where they are not the parameters themselves; stage 3: the shard
  int64_t slots = 0;            // what the update rule keeps (AdamW: both moments)
  int64_t parameter_slots = 0;  // stage 3: gathered blocks
  int64_t gradient_slots = 0;   // stages 2 and 3: blocks in turn, staging of their tp sums included
  int64_t tp_staging = 0;       // stages 0 and 1: copies of kv heads on their way over tp
  int64_t dp_staging = 0;       // bf16 gradients on their way over dp
  int64_t matrices = 0;     // of a rule by matrices: what brings them together and works on them
  int64_t bookkeeping = 0;  // flags and counters
  int64_t total() const;
};

struct GridSize {
  int tp = 1;
  int dp = 1;
};

/// For the tp rank whose blocks these are; the same on every dp rank. Throws InternalError for
/// options that the two constructors refuse.
BucketMemory bucket_memory(const std::vector<parameters::ParameterBlock>& blocks, GridSize grid,
                           const ParamBuckets::Options& options, const Options& of_zero);

}  // namespace tptrain::zero
