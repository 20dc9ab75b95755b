// The saves of a run, and what becomes of one that fails: tried again at once where that can help,
// else when the next one is due, or the end of the run.
#pragma once

#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/checkpoint_store.h"
#include "comm/control.h"
#include "sharding/state_dict.h"

namespace tptrain::train {

/// checkpoint.on_failure
enum class OnFailure { stop, go_on };

class Saver {
 public:
  Saver(checkpoint::CheckpointStore& store, comm::ControlGroup& group, Logger& log,
        OnFailure on_failure)
      : store_(store), group_(group), log_(log), on_failure_(on_failure) {}

  /// What was committed; nothing where it failed and the run may go on, which is said in the log.
  /// Throws the store's error where it may not: on_failure is stop, run_dir is another run's by
  /// now, or the program is at fault. The same on every rank. Collective.
  std::optional<checkpoint::CheckpointInfo> save(const sharding::StateDict& state,
                                                 const checkpoint::TrainState& train_state);
  /// At the end of a run. Throws the error of the last save() where that one failed.
  void throw_if_last_failed() const;
  bool last_failed() const { return last_failure_.has_value(); }

 private:
  void warn(const std::string& line);

  checkpoint::CheckpointStore& store_;
  comm::ControlGroup& group_;
  Logger& log_;
  OnFailure on_failure_;
  std::optional<Error> last_failure_;
};

}  // namespace tptrain::train
