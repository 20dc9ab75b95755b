// What the end of a job means: done, a stop, an error that no restart mends, or one that one may.
#pragma once

#include <string>

namespace tptrain::launch {

enum class Meaning {
  done,
  stopped,  // on request, or its time was over: whoever started the launcher starts it again
  final,    // the run file, the data, the checkpoints or the loss: somebody has to look
  restart   // a crash, a hang, a rank or a host that was lost
};

struct Outcome {
  Meaning meaning;
  int exit_code;    // of the launcher, if this is the end
  std::string why;  // "a rank was killed by SIGKILL"
};

/// `code`: of mpirun, as a shell says it. `asked`: whether a stop was asked for.
Outcome outcome_of(int code, bool hung, bool asked);
/// Whether such a code means that a rank was ended by a signal.
bool is_by_signal(int code);

}  // namespace tptrain::launch
