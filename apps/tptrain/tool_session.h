// MPI for a verb beside training, with a watchdog over it from before MPI_Init on: where one of
// several ranks stops or hangs the others say so and end, instead of waiting for ever. A rank alone
// waits for nobody and is not watched.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/progress_board.h"
#include "base/watchdog.h"
#include "comm/launcher.h"
#include "comm/mpi_session.h"
#include "comm/rank_boards.h"

namespace tptrain::apps {

class ToolSession {
 public:
  /// `hang_timeout_s`: seconds without progress after which a rank ends the job; 0: never.
  ToolSession(int* argc, char*** argv, int64_t hang_timeout_s)
      : watchdog_(started(board_), {.limit = std::chrono::seconds(hang_timeout_s),
                                    .rank = comm::launched_rank().value_or(0)}),
        session_(argc, argv, &board_) {
    watchdog_.set(
        comm::watchdog_options(comm::boards_of(session_),
                               std::chrono::seconds(session_.size() == 1 ? 0 : hang_timeout_s)));
  }
  ~ToolSession() { board_.enter("ending MPI"); }
  ToolSession(const ToolSession&) = delete;
  ToolSession& operator=(const ToolSession&) = delete;

  comm::MpiSession& session() { return session_; }

 private:
  static const ProgressBoard& started(ProgressBoard& board) {
    board.enter("starting MPI");
    return board;
  }

  ProgressBoard board_;
  Watchdog watchdog_;
  comm::MpiSession session_;
};

}  // namespace tptrain::apps
