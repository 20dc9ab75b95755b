// Which checkpoints a PATH given by a user means.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/checkpoint_store.h"

namespace tptrain::checkpoint {

/// PATH is a checkpoint, a directory of them, or a run directory; or one of the latter two with a
/// name at its end, `best` or `last` (named_checkpoints.h). Newest first, those with a
/// problem last; never empty. Throws CheckpointError where PATH does not exist or holds none.
std::vector<Verdict> find_checkpoints(const std::string& path, Depth depth);

/// The newest of them whose contents are valid. `not_used`: what was newer, and why it was refused.
/// Throws CheckpointError with all reasons where none is.
struct NewestValid {
  std::filesystem::path path;
  std::vector<Problem> not_used;
};
NewestValid newest_valid(const std::string& path);

}  // namespace tptrain::checkpoint
