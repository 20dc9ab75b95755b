// The state of a checkpoint in the engine: to resume, or to go back to.
#include "base/error.h"
#include "base/text.h"
#include "train/start.h"

namespace tptrain::train {

void load_state(const StartParts& parts, const checkpoint::CheckpointInfo& from,
                checkpoint::TrainState& state) {
  sharding::StateDict pieces = parts.engine.state().state_dict();
  parts.store.load_into(pieces, from);
  parts.engine.state().state_loaded(from.state.updates_done);
  state.step = from.state.step;
  state.updates_done = from.state.updates_done;
  state.tokens_seen = from.state.tokens_seen;
}

std::string kept_guard(const checkpoint::TrainState& state) {
  const auto kept = state.extra.find(kOutlierGuard);
  return kept == state.extra.end() ? "" : kept->second;
}

void roll_back(const StartParts& parts, const std::optional<checkpoint::CheckpointInfo>& to,
               int64_t outlier, OutlierGuard& guard, checkpoint::TrainState& state) {
  if (!to) {
    NumericsError error(
        problem("it is an outlier, and the save that the run was to go back to has failed")
            .at(cat("step ", outlier))
            .remedy("The log says why the save failed."));
    error.set_agreed();
    throw error;
  }
  load_state(parts, *to, state);
  const int64_t outliers = guard.outliers();
  const int64_t left_out = outlier - to->state.step;
  const int64_t passed_over = guard.passed_over() + left_out;
  comm::agree(parts.session, [&] { guard.restore(kept_guard(to->state), to->path.string()); });
  guard.rolled_back(outliers, passed_over);
  if (parts.session.rank() == 0)
    parts.log.warn(cat("step ", outlier, " is an outlier (", outliers, " of at most ",
                       guard.limit(), "): the run goes back to ", to->path.string(),
                       " and leaves out the ", left_out, " batches up to it"));
}

}  // namespace tptrain::train
