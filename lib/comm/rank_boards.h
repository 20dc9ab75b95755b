// What every rank of the job is doing, for one that waits in vain: the states of this host's ranks
// in memory that they share, those of other hosts over TCP. Looking needs no collective, and no
// rank but the one that looks.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/processes.h"
#include "base/rank_state.h"
#include "base/watchdog.h"
#include "comm/board_server.h"
#include "comm/control.h"
#include "comm/host_segment.h"
#include "comm/mpi_session.h"

namespace tptrain::comm {

/// Whether a rank without progress computes and asks the system for nothing: who waits in MPI gives
/// its core away again and again, or sleeps. Judges by the statuses of its first thread.
class SelfWatch {
 public:
  /// There is progress: what was seen counts no more.
  void restart() { *this = {}; }
  /// Whether it wants to see the status now.
  bool wants(int64_t now_ns) const;
  bool computes_alone(int64_t now_ns, const ProcessStatus& status);

 private:
  std::optional<ProcessStatus> first_;  // of what is watched
  int64_t since_ns_ = 0;
  int64_t next_ns_ = 0;
  bool alone_ = false;  // what was seen last
};

class RankBoards {
 public:
  /// `host`: the ranks of `world` that share memory. Collective over both.
  RankBoards(ControlGroup& world, ControlGroup& host);
  RankBoards(const RankBoards&) = delete;
  RankBoards& operator=(const RankBoards&) = delete;

  /// What this rank is doing, for the others; on one thread.
  void show(const ProgressBoard::Entry& entry);
  /// The GPU of this rank, by its number on the host.
  void set_gpu(int gpu) { gpu_ = gpu; }

  struct Look {
    std::vector<RankState> ranks;     // in rank order, as many as are known
    std::vector<std::string> silent;  // hosts that did not answer: "node2 (ranks 4, 5)"
  };
  /// Within about two seconds. From any thread.
  Look look() const;
  /// For this rank's watchdog, which is about to end the process: who it is and whom it waits for.
  /// The others are told that this one ends by itself.
  StallSpeaker speak_before_the_end();
  RankState own() const { return own_->read(); }

 private:
  struct Neighbour {  // another host
    std::string name;
    std::vector<int> ranks;
    std::vector<BoardEndpoint> endpoints;  // of each rank
  };
  std::vector<RankState> states_here() const;

  std::unique_ptr<HostSegment> segment_;  // null: this rank's state alone
  SharedState alone_;
  SharedState* own_;
  std::atomic<int> gpu_ = -1;
  uint64_t writes_ = 0;  // of the board, when it was shown last
  SelfWatch watch_;
  int states_ = 1;  // in the segment
  std::string secret_;
  std::vector<Neighbour> neighbours_;
  std::unique_ptr<BoardServer> server_;  // null: there is one host. Goes first.
};

/// Of all ranks of the session. Collective.
std::shared_ptr<RankBoards> boards_of(MpiSession& session);

/// Of a process whose ranks know of one another by the boards.
Watchdog::Options watchdog_options(const std::shared_ptr<RankBoards>& boards,
                                   std::chrono::milliseconds limit);

}  // namespace tptrain::comm
