// Processes of this host as /proc shows them. Calls nothing that could wait for them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tptrain {

struct ProcessStatus {
  char state = '?';  // as ps says it; '?': there is no such process
  int parent = 0;
  // Of its first thread, in ticks of the clock (100 a second).
  int64_t in_program = 0;
  int64_t in_system = 0;
};
ProcessStatus process_status(int pid);

/// "is stopped (SIGSTOP)" and the like of a process that does not run; "" of one that does.
std::string why_it_does_not_run(const ProcessStatus& status);

std::vector<int> children_of(int pid);

/// Its rank as its launcher counts; "" where none started it.
std::string rank_of_process(int pid);

}  // namespace tptrain
