// All stages of one cadence beside one another and beside one rank's training.
#pragma once

#include <string>
#include <vector>

#include "mpi/zero/grid_run.h"

namespace tptrain::testing {

/// What is wrong with the stages of one cadence (setup.stage is not read); nothing without a fault.
/// Collective over the world.
std::vector<std::string> violations(Setup setup);

}  // namespace tptrain::testing
