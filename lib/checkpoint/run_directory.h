// A training run's hold on its run_dir: one run at a time, on a file system that all ranks share.
// The lock decides where locks work; where they do not, the token does: a second run may then
// start, and the first finds at its next save that run_dir is no longer its own.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "checkpoint/shared_directory.h"
#include "comm/control.h"

namespace tptrain::checkpoint {

/// The token in run_dir/.owner. The last one to write it owns run_dir.
class RunOwner {
 public:
  /// Writes a new token: whoever had run_dir before is told so when it next looks.
  explicit RunOwner(std::filesystem::path run_dir);

  struct Look {
    enum class Hold { held, lost, gone } hold = Hold::held;
    std::string by = {};  // lost: who holds it
  };
  /// What is written there now. Throws CheckpointError where the file cannot be read.
  Look look() const;
  /// Throws CheckpointError where another run has taken run_dir, or it has been removed: nothing in
  /// it may be written, renamed or removed any longer.
  void require() const;
  /// Makes run_dir and the token anew, after it was removed.
  void write(FailAs fail_as = FailAs::checkpoint_error) const;

 private:
  std::filesystem::path run_dir_;
  std::string token_;
};

class RunDirectory {
 public:
  /// Creates `run_dir` (durably) where it is missing, locks it, becomes its owner, removes the
  /// temporary files that killed starts left, and sees to it that every rank sees it. Throws
  /// ConfigError: in use, not writable, not shared; CheckpointError where the disk is full or
  /// fails. Collective.
  RunDirectory(comm::ControlGroup& group, const std::filesystem::path& run_dir,
               const SharedDirectoryOptions& options = {});

  /// Null on every rank but 0.
  const RunOwner* owner() const { return owner_ ? &*owner_ : nullptr; }
  /// For the log; empty on every rank but 0.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  std::optional<FileLock> lock_;
  std::optional<RunOwner> owner_;
  std::vector<std::string> warnings_;
};

}  // namespace tptrain::checkpoint
