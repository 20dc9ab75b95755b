#include "train/saver.h"

#include <utility>

#include "base/text.h"
#include "base/work.h"

namespace tptrain::train {

using checkpoint::CheckpointInfo;
using checkpoint::CheckpointStore;
using checkpoint::SaveAgain;

namespace {

constexpr int kAttempts = 2;

double seconds_since(std::chrono::steady_clock::time_point begin,
                     std::chrono::steady_clock::time_point end = std::chrono::steady_clock::now()) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

// Counts the time of a call as one in which the training waits.
class Saver::Stall {
 public:
  explicit Stall(double& total_s) : total_s_(total_s) {}
  ~Stall() { total_s_ += seconds_since(begin_); }
  Stall(const Stall&) = delete;

 private:
  double& total_s_;
  Clock::time_point begin_ = Clock::now();
};

void Saver::save(const sharding::StateDict& state, const checkpoint::TrainState& train_state) {
  if (store_.is_saving()) {
    const Clock::time_point begin = Clock::now();
    const int64_t before = train_state_.step;
    finish();
    if (group_.rank() == 0)
      log_.info(cat("the save of step ", train_state.step, " waited ",
                    fixed(seconds_since(begin), 2), " s for that of step ", before, " to end"));
  }
  begun_ = Clock::now();
  stall_s_ = 0;
  attempts_ = 0;
  writing_ = false;
  train_state_ = train_state;
  if (snapshot_ == nullptr) return save_at_once(state, train_state);
  const Stall stall(stall_s_);
  {
    const Work work("taking memory for a copy of the state");
    snapshot_->wait();  // of a save that failed before its copy was there
    snapshot_->begin(state);
  }
  begin_attempts();
}

void Saver::save_at_once(const sharding::StateDict& state,
                         const checkpoint::TrainState& train_state) {
  while (true) {
    ++attempts_;
    try {
      const CheckpointInfo info = store_.save(state, train_state);
      stall_s_ = seconds_since(begun_);
      return committed(info);
    } catch (const Error& error) {
      if (!is_worth_another(error)) return;
    }
  }
}

// Where it fails before anything is written, and may be tried again, it is.
void Saver::begin_attempts() {
  while (true) {
    ++attempts_;
    try {
      store_.begin_save(snapshot_->copy(), train_state_);
      writing_ = false;
      return;
    } catch (const Error& error) {
      if (!is_worth_another(error)) return;
    }
  }
}

void Saver::start_writing() {
  if (std::exchange(writing_, true)) return;
  snapshot_->wait();
  store_.start_writing();
}

void Saver::let_state_change() {
  if (snapshot_ == nullptr) return;
  const Stall stall(stall_s_);
  const Work work("copying the state");
  snapshot_->let_state_change();
}

CheckpointStore::Progress Saver::progress() {
  if (!store_.is_saving()) return CheckpointStore::Progress::busy;
  if (!writing_ && !snapshot_->is_complete()) return CheckpointStore::Progress::busy;
  start_writing();
  return store_.save_progress();
}

void Saver::continue_save(bool one_has_failed) {
  if (!store_.is_saving()) return;
  std::optional<CheckpointInfo> info;
  {
    const Stall stall(stall_s_);
    start_writing();
    if (one_has_failed) store_.give_up_writing();
    try {
      info = store_.continue_save();
    } catch (const Error& error) {
      if (is_worth_another(error)) begin_attempts();
    }
  }
  if (info) committed(*info);
}

void Saver::finish() {
  if (!store_.is_saving()) return;
  // What its threads write from here on counts by itself.
  const Work work(cat("waiting for the checkpoint of step ", train_state_.step), WorkUnit::bytes,
                  store_.bytes_to_write());
  while (store_.is_saving()) continue_save(/*one_has_failed=*/false);
}

// False: the run goes on without it. Throws where it may not go on.
bool Saver::is_worth_another(const Error& error) {
  // Else it is not known whether the other ranks are here too, or it is no matter of the disk.
  const bool of_the_disk = error.agreed() && error.code() == ExitCode::checkpoint;
  if (!of_the_disk || store_.save_again() == SaveAgain::never) throw;
  last_save_s_ = seconds_since(begun_);
  if (attempts_ < kAttempts && store_.save_again() == SaveAgain::at_once) {
    warn(cat("the checkpoint of step ", train_state_.step,
             " failed and is tried again: ", error.what()));
    return true;
  }
  if (on_failure_ == OnFailure::stop) throw;
  last_failure_ = error;
  warn(cat("no checkpoint of step ", train_state_.step,
           "; training goes on, and the next one is tried when it is due: ", error.what()));
  return false;
}

void Saver::committed(const CheckpointInfo& info) {
  last_failure_.reset();
  last_save_s_ = seconds_since(begun_);
  for (const std::string& line : store_.retention_problems()) log_.warn(line);
  if (on_saved_)
    on_saved_({.info = info,
               .stall_s = stall_s_,
               .save_s = seconds_since(begun_, store_.committed_at()),
               .bytes = store_.save_bytes()});
}

void Saver::throw_if_last_failed() const {
  if (last_failure_) throw Error(*last_failure_);
}

void Saver::warn(const std::string& line) {
  if (group_.rank() == 0) log_.warn(line);
}

}  // namespace tptrain::train
