// What a ZeRO stage and the dtypes mean for the memory of a rank: who holds what, and as what. The
// optimizer allocates by it, bucket_memory() counts by it.
#pragma once

#include <c10/core/ScalarType.h>

#include "zero/layout.h"
#include "zero/options.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

struct StateLayout {
  bool holds_all = false;  // masters and slots of whole buckets (stage 0), else of the shard
  Buffers parameter_buffers = Buffers::own;  // shared: stage 3
  Buffers gradient_buffers = Buffers::own;   // shared: stages 2 and 3
  /// Parameters are gathered over dp, block by block, before their first use after an update.
  bool gathers_parameters = false;
  /// Gradients are reduced after every micro-batch and accumulate in shards of their own.
  bool accumulates = false;
  bool own_masters = false;  // else the masters are the parameters themselves
  at::ScalarType master_dtype = at::kFloat;
  const optim::UpdateRule* rule = nullptr;
  at::ScalarType slots_dtype = at::kFloat;
  bool casts_for_reduction = false;  // gradients go over dp as bf16
};

/// Throws InternalError for what no stage can do; the config says it to users first.
StateLayout state_layout(const ParamBuckets::Options& buckets, const Options& options, int dp_size);

}  // namespace tptrain::zero
