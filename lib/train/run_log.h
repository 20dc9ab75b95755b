// What the log of a run says of the run itself: who, where and why at its beginning, what is
// trained, what it took.
#pragma once

#include <c10/core/Device.h>

#include <string>

#include "base/log.h"
#include "comm/mpi_session.h"
#include "train/resolve.h"
#include "train/run.h"
#include "train/trainer.h"

namespace tptrain::train {

/// Who writes this log, when, where and why: what a log that is found later must say first.
/// Collective.
void log_begin(comm::MpiSession& session, const RunRequest& request, Logger& log);

/// What is about to be trained, and in which numbers.
void log_model(const ResolvedConfig& resolved, Logger& log);

/// "1.20 GiB", or "1.10 GiB (rank 0) to 1.20 GiB (rank 3)" of all ranks. Collective.
std::string peak_memory_of_ranks(comm::MpiSession& session, at::Device device);

/// How the run ended, where its files are, and what of them could not be written.
void say_outcome(const RunOutcome& outcome, const config::RunConfig& run, Logger& log);

}  // namespace tptrain::train
