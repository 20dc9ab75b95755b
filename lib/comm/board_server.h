// The states of a host's ranks for those of other hosts, over TCP: a side channel that needs no
// collective and no rank of the host but the one that is asked. Whoever does not know the job's
// secret gets nothing. Internal to comm.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/rank_state.h"

namespace tptrain::comm {

/// Where one answers: this host's addresses, all with one port; travels as text.
struct BoardEndpoint {
  std::vector<std::string> addresses;
  int port = 0;
};
std::string to_wire(const BoardEndpoint& endpoint);
BoardEndpoint endpoint_from_wire(const std::string& text);

class BoardServer {
 public:
  /// Answers from a thread of its own until destroyed; `states` is called there. Without a port to
  /// listen at, endpoint() has no address.
  BoardServer(std::string secret, std::function<std::vector<RankState>()> states);
  ~BoardServer();
  BoardServer(const BoardServer&) = delete;
  BoardServer& operator=(const BoardServer&) = delete;

  const BoardEndpoint& endpoint() const { return endpoint_; }

 private:
  void serve();
  void answer(int connection);

  std::string secret_;
  std::function<std::vector<RankState>()> states_;
  int listener_ = -1;
  int wake_[2] = {-1, -1};  // a pipe: its other end closed, the thread ends
  BoardEndpoint endpoint_;
  std::thread thread_;  // goes first
};

/// What the endpoint answers within the limit; nothing where it does not.
std::optional<std::vector<RankState>> ask_for_states(const BoardEndpoint& endpoint,
                                                     const std::string& secret,
                                                     std::chrono::milliseconds limit);

}  // namespace tptrain::comm
