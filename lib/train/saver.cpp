#include "train/saver.h"

#include "base/text.h"

namespace tptrain::train {

using checkpoint::SaveAgain;

std::optional<checkpoint::CheckpointInfo> Saver::save(const sharding::StateDict& state,
                                                      const checkpoint::TrainState& train_state) {
  constexpr int kAttempts = 2;
  for (int attempt = 1;; ++attempt) {
    try {
      const checkpoint::CheckpointInfo saved = store_.save(state, train_state);
      last_failure_.reset();
      for (const std::string& line : store_.retention_problems()) log_.warn(line);
      return saved;
    } catch (const Error& error) {
      // Else it is not known whether the other ranks are here too, or it is no matter of the disk.
      const bool of_the_disk = error.agreed() && error.code() == ExitCode::checkpoint;
      if (!of_the_disk || store_.save_again() == SaveAgain::never) throw;
      if (attempt < kAttempts && store_.save_again() == SaveAgain::at_once) {
        warn(cat("the checkpoint of step ", train_state.step,
                 " failed and is tried again: ", error.what()));
        continue;
      }
      if (on_failure_ == OnFailure::stop) throw;
      last_failure_ = error;
      warn(cat("no checkpoint of step ", train_state.step,
               "; training goes on, and the next one is tried when it is due: ", error.what()));
      return std::nullopt;
    }
  }
}

void Saver::throw_if_last_failed() const {
  if (last_failure_) throw Error(*last_failure_);
}

void Saver::warn(const std::string& line) {
  if (group_.rank() == 0) log_.warn(line);
}

}  // namespace tptrain::train
