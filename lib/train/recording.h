// What rank 0 writes down of a training beside its checkpoints: metrics, curves, the settings of
// each start; and what of it a start needs to know of those before.
#pragma once

#include <optional>

#include "base/log.h"
#include "base/terminal_line.h"
#include "comm/mpi_session.h"
#include "metrics/console.h"
#include "metrics/recorder.h"
#include "train/best_loss.h"
#include "train/resolve.h"

namespace tptrain::train {

struct Recording {
  std::optional<metrics::Recorder> recorder;         // on rank 0
  std::optional<metrics::ProgressDisplay> progress;  // likewise
  BestLoss best_loss;                                // of the evaluations before, on every rank
};

/// For a training that goes on behind `first_step`: the files' lines beyond it go. Throws on every
/// rank where metrics.jsonl cannot be read or opened, or the settings cannot be written; curves
/// that cannot be written are warned of. `log` and `terminal` outlive the result. Collective.
Recording begin_recording(comm::MpiSession& session, const ResolvedConfig& resolved,
                          int64_t first_step, Logger& log, TerminalLine& terminal);

}  // namespace tptrain::train
