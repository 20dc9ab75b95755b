// A ControlGroup whose ranks are forked processes, joined by sockets to rank 0: for ranks that are
// killed one by one, without MPI. A rank whose peer is gone leaves with kPeerIsGone, as mpirun
// would end it.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "comm/control.h"

namespace tptrain::testing {

inline constexpr int kPeerIsGone = 98;

/// What became of the ranks, and what each of them said before it ended.
struct RanksEnded {
  std::vector<int> codes;          // of exit; 128 + signal where one ended it
  std::vector<std::string> words;  // of rank r, all of say(); in the order in which they came
};

/// In a rank: to whoever called run_processes. Kept also where the rank is killed just after.
using Say = std::function<void(const std::string&)>;

/// Forks `size` ranks, runs `body` in each and waits. A rank whose body returns ends with 0, one
/// that throws with 99 and the error said.
RanksEnded run_processes(int size,
                         const std::function<void(comm::ControlGroup&, const Say&)>& body);

}  // namespace tptrain::testing
