// What a ZeRO stage and the dtypes mean for the memory of a rank: who holds what, and as what. The
// optimizer allocates by it, bucket_memory() counts by it.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <vector>

#include "optim/slot.h"
#include "optim/unit.h"
#include "sharding/state_dict.h"
#include "zero/allocation.h"
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
  at::ScalarType parameter_dtype = at::kFloat;
  bool own_masters = false;  // else the masters are the parameters themselves
  at::ScalarType master_dtype = at::kFloat;
  const optim::UpdateRule* rule = nullptr;
  std::vector<optim::Slot> element_slots, matrix_slots;  // what it keeps, by unit
  bool casts_for_reduction = false;                      // gradients go over dp as bf16
  /// The largest magnitudes of parameters that ask for it (Parameter::wants_amax) are kept.
  bool keeps_amax = false;
  FrozenValues frozen_values = FrozenValues::in_state;

  const std::vector<optim::Slot>& slots(optim::Unit unit) const {
    return unit == optim::Unit::matrix ? matrix_slots : element_slots;
  }
  /// Checkpoints are told of what trains, or does not.
  bool is_in_state(bool trains) const { return trains || frozen_values == FrozenValues::in_state; }
};

/// Of the rule that the buckets are laid out for; where they name none, of the options'.
/// Throws InternalError for what no stage can do; the config says it to users first.
StateLayout state_layout(const ParamBuckets::Options& buckets, const Options& options, int dp_size);

/// One kind of state that is kept of every element of a bucket, and as what.
struct StateTensor {
  sharding::StateKind kind;
  at::ScalarType dtype = at::kFloat;
};
/// All that checkpoints are told of where it is_in_state(), the master first. Allocated by it,
/// handed out by it (ShardedState::state_dict), counted by it: a new kind of state has its line
/// here.
std::vector<StateTensor> state_tensors(bool trains, optim::Unit unit, const StateLayout& layout);

/// The small tensors of a step, which stay where they are: a captured step reads and writes them.
struct StepTensors {
  // By parameter, in block order:
  Allocation nonfinite_flags;
  Allocation parameter_indices;
  // Scalars of the update:
  Allocation learning_rate{.shape = {}, .dtype = at::kDouble};
  Allocation updates{.shape = {}, .dtype = at::kFloat};  // exact up to 2^24
  Allocation gradient_scale{.shape = {}, .dtype = at::kFloat};
  Allocation finite{.shape = {}, .dtype = at::kBool};
  int64_t bytes() const;
};
StepTensors step_tensors(int64_t parameters);
int64_t parameter_count(const std::vector<parameters::ParameterBlock>& blocks);

}  // namespace tptrain::zero
