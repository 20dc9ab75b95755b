// Trainer: the saves of its loop.
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/named_checkpoints.h"
#include "train/trainer.h"
#include "train/wall_clock.h"

namespace tptrain::train {

// An error that all ranks hold leaves the save that is under way to its end: its steps were good.
RunOutcome Trainer::run(checkpoint::TrainState state) {
  try {
    return run_steps(state);
  } catch (const Rollback& back) {
    finish_save();  // the checkpoint to go back to may be on its way
    RunOutcome outcome;
    outcome.state = state;
    outcome.outlier = back.outlier;
    outcome.last_checkpoint = last_checkpoint_ ? last_checkpoint_ : parts_.begun_at;
    return outcome;
  } catch (const Error& error) {
    if (!error.agreed() || !saver_.is_saving()) throw;
    try {
      finish_save();
    } catch (const Error& of_save) {
      if (!of_save.agreed()) throw;
      if (parts_.session.rank() == 0) parts_.log.warn(of_save.what());
    }
    throw;
  }
}

void Trainer::save(const checkpoint::TrainState& state) {
  board_->enter("writing a checkpoint", state.step);
  checkpoint::TrainState now = state;
  zero::ShardedState& live = parts_.engine.state();
  now.updates_done = live.updates_done();
  if (parts_.guard.has_state()) now.extra[kOutlierGuard] = parts_.guard.to_text();
  saver_.save(live.state_dict(), now);
  live.call_before_update([this] { saver_.let_state_change(); });
  begin_step_time();
}

// Whether the state is saved, or will be by a save that is under way.
bool Trainer::save_if_due(const checkpoint::TrainState& state) {
  const bool last = state.step == parts_.config.run.train.max_steps;
  if (!last && !parts_.saves.due(state.step)) return false;
  read_pending();  // a checkpoint never commits before its step's finite flag is read
  save(state);
  // Before what follows: whatever it meets, the last steps are not lost.
  if (last) finish_save();
  return saver_.is_saving() || !saver_.last_failed();
}

bool Trainer::keep_best(const checkpoint::TrainState& state, bool is_saved) {
  if (!is_saved) save(state);
  finish_save();  // or one that fails would take the best one before with it
  if (saver_.last_failed()) return false;
  name_best(state);
  return true;
}

void Trainer::finish_save() {
  board_->enter("waiting for a checkpoint to be written");
  saver_.finish();
  begin_step_time();
}

void Trainer::say_saved(const Saved& saved) {
  last_checkpoint_ = saved.info;
  parts_.log.info(cat("checkpoint: ", saved.info.path.string(), " committed in ",
                      fixed(saved.save_s, 2), " s"));
  if (parts_.recorder == nullptr) return;
  parts_.recorder->save({.step = saved.info.state.step,
                         .stall_s = saved.stall_s,
                         .save_s = saved.save_s,
                         .bytes = saved.bytes,
                         .time = seconds_since_1970()});
}

bool Trainer::is_best(int64_t step) const {
  const auto& best = parts_.best_loss.best();
  return parts_.config.run.checkpoint.keep_best == config::KeepBest::eval_loss && best &&
         best->step == step;
}

void Trainer::name_best(const checkpoint::TrainState& state) {
  if (parts_.session.rank() != 0) return;
  try {
    checkpoint::add_best(std::filesystem::path(parts_.config.run.run_dir) / "checkpoints",
                         state.run.id, {.step = state.step, .loss = parts_.best_loss.best()->loss});
  } catch (const Error& error) {
    // Training can go on; the best one before keeps its name.
    parts_.log.warn(cat("the best checkpoint so far, of step ", state.step,
                        ", does not get its name: ", error.what()));
  }
}

}  // namespace tptrain::train
