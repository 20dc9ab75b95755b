// The saves of a run: at once, or from a copy of the state beside the steps that follow; and what
// becomes of one that fails: tried again at once where that can help, else when the next one is
// due, or the end of the run.
#pragma once

#include <chrono>
#include <functional>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "checkpoint/checkpoint_store.h"
#include "comm/control.h"
#include "config/run_config.h"
#include "sharding/state_dict.h"
#include "zero/state_snapshot.h"

namespace tptrain::train {

using config::OnFailure;

struct Saved {
  checkpoint::CheckpointInfo info;
  double stall_s = 0;  // that this rank's training waited
  double save_s = 0;   // from the begin to the commit; what is old is removed after that
  int64_t bytes = 0;   // of all shards
};

class Saver {
 public:
  /// `snapshot`: where the state is copied to; null: every save is done when save() returns. The
  /// same on every rank. `on_saved` gets each save that was committed.
  Saver(checkpoint::CheckpointStore& store, comm::ControlGroup& group, Logger& log,
        OnFailure on_failure, zero::StateSnapshot* snapshot = nullptr,
        std::function<void(const Saved&)> on_saved = {})
      : store_(store),
        group_(group),
        log_(log),
        on_failure_(on_failure),
        snapshot_(snapshot),
        on_saved_(std::move(on_saved)) {}
  /// Abandons a save that is under way.
  ~Saver() { store_.abandon_save(); }
  Saver(const Saver&) = delete;

  /// Begins a save of the live `state`, after the one that is under way, if any: then the log says
  /// how long that took. One that fails, at once or later, is told in the log where the run may go
  /// on; else the store's error is thrown: on_failure is stop, run_dir is another run's by now, or
  /// the program is at fault. The same on every rank. Collective.
  void save(const sharding::StateDict& state, const checkpoint::TrainState& train_state);
  /// To be called before the state changes after save().
  void let_state_change();
  bool is_saving() const { return store_.is_saving(); }

  // At a step boundary: every rank asks for its progress, tells the others, and where all are done,
  // or one has failed, every rank calls continue_save().
  checkpoint::CheckpointStore::Progress progress();
  /// Throws as save() does. Collective.
  void continue_save(bool one_has_failed);
  /// Waits until no save is under way. Throws as save() does. Collective.
  void finish();

  /// At the end of a run. Throws the error of the last save where that one failed.
  void throw_if_last_failed() const;
  bool last_failed() const { return last_failure_.has_value(); }
  /// How long the last one took, from its begin to its end, with the removal of what is old.
  std::optional<double> last_save_s() const { return last_save_s_; }

 private:
  using Clock = std::chrono::steady_clock;
  class Stall;
  void save_at_once(const sharding::StateDict& state, const checkpoint::TrainState& train_state);
  void begin_attempts();
  void start_writing();
  bool is_worth_another(const Error& error);
  void committed(const checkpoint::CheckpointInfo& info);
  void warn(const std::string& line);

  checkpoint::CheckpointStore& store_;
  comm::ControlGroup& group_;
  Logger& log_;
  OnFailure on_failure_;
  zero::StateSnapshot* snapshot_;
  std::function<void(const Saved&)> on_saved_;
  std::optional<Error> last_failure_;
  std::optional<double> last_save_s_;
  // Of the save that is under way:
  checkpoint::TrainState train_state_;
  Clock::time_point begun_;
  double stall_s_ = 0;
  int attempts_ = 0;
  bool writing_ = false;  // the copy is complete and is being written
};

}  // namespace tptrain::train
