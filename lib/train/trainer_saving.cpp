// Trainer: the saves of its loop.
#include "base/error.h"
#include "base/text.h"
#include "train/trainer.h"

namespace tptrain::train {
namespace {

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

// An error that all ranks hold leaves the save that is under way to its end: its steps were good.
RunOutcome Trainer::run(checkpoint::TrainState state) {
  try {
    return run_steps(std::move(state));
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
  zero::ZeroOptimizer& zero = parts_.engine.zero();
  now.updates_done = zero.updates_done();
  saver_.save(zero.state_dict(), now);
  zero.call_before_update([this] { saver_.let_state_change(); });
  last_issued_ = std::chrono::steady_clock::now();
}

void Trainer::finish_save() {
  board_->enter("waiting for a checkpoint to be written");
  saver_.finish();
  last_issued_ = std::chrono::steady_clock::now();
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

}  // namespace tptrain::train
