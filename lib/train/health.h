// What a healthy run keeps true on every rank: replicas stay equal, numbers stay finite. Finds out
// who broke it and says so; what is then done is the trainer's affair.
#pragma once

#include <cstdint>
#include <string>

#include "comm/control.h"
#include "zero/param_buckets.h"
#include "zero/sharded_state.h"
#include "zero/step_numbers.h"

namespace tptrain::train {

/// Compares the parameters of all ranks before step `step`: whatever several ranks hold (replicated
/// over tp, copies of kv heads, everything over dp) must be bitwise equal. Throws NumericsError,
/// the same on every rank, naming each tensor that drifted and the ranks. Collective over `world`.
void audit_parameters(zero::ShardedState& state, comm::ControlGroup& world, int64_t step);

/// Where a step went wrong: "rank 2: the gradient of 'model.norm.weight'; rank 3: its loss", from
/// each rank's StepNumbers::culprit. Collective over `world`; reads the device.
std::string describe_nonfinite(const zero::ParamBuckets& buckets, const zero::StepNumbers& numbers,
                               comm::ControlGroup& world);

}  // namespace tptrain::train
