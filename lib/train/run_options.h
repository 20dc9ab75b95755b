// The words of a run file as the options that the model, the optimizer and the planner take: one
// mapping for the run, its forecast and `tptrain plan`.
#pragma once

#include <string>

#include "comm/device_mesh.h"
#include "config/run_config.h"
#include "model/decoder.h"
#include "optim/slot.h"
#include "planner/plan.h"
#include "train/engine.h"
#include "train/resolve.h"
#include "zero/options.h"

namespace tptrain::train {

using optim::scalar_type;  // of a config::Dtype
model::Recompute recompute_of(config::Recompute recompute);
/// As the run file or, with ZeRO 2 and 3, the stage says.
bool reduces_per_micro_batch(const config::ParallelConfig& parallel);
comm::AxisCopies axis_copies(const config::ParallelConfig& parallel);
model::TrainingOptions training_options(const config::RunConfig& run);
zero::Options zero_options(const config::RunConfig& run);
Engine::Options engine_options(const ResolvedConfig& resolved);  // without a clock
/// What the planner forecasts for a run.
planner::Layout planned_layout(const ResolvedConfig& resolved);
/// How many checkpoints that checkpoint.keep_every lets stay are made after `step` steps.
int64_t keep_every_saves_left(const config::RunConfig& run, int64_t step);

/// Floating point operations of the training, by token (model::flops_per_token).
double flops_of_token(const ResolvedConfig& resolved);

}  // namespace tptrain::train
