// Which checkpoints a PATH of the command line means; shared by inspect and verify.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"

namespace tptrain::apps {

/// PATH is a checkpoint, a directory of them, or a run directory. Newest first, those with a
/// problem last; never empty. Throws CheckpointError where PATH does not exist or holds none.
std::vector<checkpoint::Verdict> find_checkpoints(const std::string& path, checkpoint::Depth depth);

}  // namespace tptrain::apps
