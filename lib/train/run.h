// The training run from the text of a run file to its exit code: resolves, assembles everything
// once, trains, cleans up in reverse.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/watchdog.h"
#include "comm/mpi_session.h"
#include "comm/rank_boards.h"

namespace tptrain::train {

struct RunRequest {
  std::string config_path;             // read on rank 0 only
  std::vector<std::string> overrides;  // of --set
  std::string program = {};            // its version, for the log
  std::string command_line = {};       // likewise
  std::chrono::steady_clock::time_point process_start;
  Watchdog& watchdog;  // of the session's board; set by the run file once that is known
  std::shared_ptr<comm::RankBoards> boards;  // what all ranks are doing
};

/// Collective over the session. Throws Error; one that is agreed() was thrown on every rank alike.
ExitCode run_training(comm::MpiSession& session, const RunRequest& request);

}  // namespace tptrain::train
