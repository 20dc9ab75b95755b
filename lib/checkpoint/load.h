// A verified checkpoint into a state of any layout.
#pragma once

#include <filesystem>

#include "checkpoint/manifest.h"
#include "comm/control.h"
#include "sharding/state_dict.h"

namespace tptrain::checkpoint {

/// all: a checkpoint that holds a kind of state that no rank wants is refused. weights: only one
/// that holds a tensor that no rank wants.
enum class Wanted { all, weights };

/// Fills every piece of `state`. Throws CheckpointError on every rank where the checkpoint lacks
/// what a rank wants, has it in another shape, or holds what no rank wants. Collective.
void load_state(comm::ControlGroup& group, const std::filesystem::path& path,
                const Manifest& manifest, sharding::StateDict& state, Wanted wanted_kinds);

}  // namespace tptrain::checkpoint
