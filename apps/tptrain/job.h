// What becomes of an error in a job of several ranks: the one place that decides between the front
// door and ending everybody.
#pragma once

#include <functional>

#include "base/error.h"
#include "comm/mpi_session.h"

namespace tptrain::apps {

/// Runs `work` on this rank of the job and returns the process's exit code. An agreed() error is
/// printed once, by rank 0, and every rank leaves in order. Any other error is this rank's alone:
/// it is printed with its rank, and all ranks are ended at once, since they wait for this one in
/// vain.
int run_job(comm::MpiSession& session, const std::function<ExitCode()>& work);

}  // namespace tptrain::apps
