// Whether all ranks see one and the same directory, checked before a training run writes anything
// into it.
#pragma once

#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "comm/control.h"

namespace tptrain::checkpoint {

struct SharedDirectoryOptions {
  // How long a rank waits for the file: network file systems may show a new name late.
  std::chrono::milliseconds patience{5000};
};

/// What a run_dir that cannot be written is told as.
ConfigError unwritable_run_dir(const std::filesystem::path& run_dir, const ConfigError& reason);

/// Rank 0 creates `run_dir` (durably) where it is missing and writes a nonce into it; every rank
/// reads it back. Throws ConfigError on every rank where run_dir cannot be written (with the
/// system's reason; CheckpointError where the disk is full or fails) or a rank does not see rank
/// 0's file: run_dir must lie on a file system shared by all hosts. Collective.
void check_shared_directory(comm::ControlGroup& group, const std::filesystem::path& run_dir,
                            const SharedDirectoryOptions& options = {});

}  // namespace tptrain::checkpoint
