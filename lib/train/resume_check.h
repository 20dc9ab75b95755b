// Whether a run can go on from a checkpoint: what of it makes its position, or its values, mean
// something else here. Each throws CheckpointError with all problems and what to do, unless it says
// otherwise; on the rank that calls it alone.
#pragma once

#include <string>

#include "checkpoint/checkpoint_store.h"
#include "config/run_config.h"
#include "train/engine.h"

namespace tptrain::train {

void check_resumable(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh,
                     const config::RunConfig& run);
/// The part of it that holds for weights that another run begins with.
void check_same_adapter(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh,
                        const config::RunConfig& run);
/// What another rule has kept is no state of this one.
void check_update_rule(const checkpoint::CheckpointInfo& info, Engine& engine,
                       const config::OptimizerConfig& optimizer);
/// `never` asks for a run of its own settings: under others it is not the run that is going on.
/// Throws ConfigError.
void check_same_run(const checkpoint::CheckpointInfo& info, const checkpoint::TrainState& fresh);

}  // namespace tptrain::train
