// mpirun as a child: started, asked to stop, ended with all that it has started here.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "launch/mpirun.h"

namespace tptrain::launch {

/// A job in a process group of its own, so that Ctrl-C reaches the ranks by way of ask_to_stop()
/// alone. Should this process be killed, the job ends.
class Job {
 public:
  /// Throws ConfigError where mpirun cannot be started.
  explicit Job(const CommandLine& command);
  /// Kills what is left.
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  /// Waits; `meanwhile` is called several times a second. Returns the exit code as a shell says it,
  /// when nothing of the job is left on this host. An mpirun that outlives its ranks is ended:
  /// `hung` is then true.
  struct End {
    int code = 0;
    bool hung = false;
  };
  End wait(const std::function<void()>& meanwhile);
  /// SIGUSR1, which mpirun hands on to every rank.
  void ask_to_stop();

 private:
  bool outlived_its_ranks();
  void end_mpirun();

  pid_t mpirun_;
  bool ended_ = false;
  bool ranks_seen_ = false;
  std::chrono::steady_clock::time_point last_look_ = {};
  std::chrono::steady_clock::time_point ranks_last_seen_ = {};
};

/// Runs it with nothing to read and nothing said; whether it ended with 0 within the limit.
bool succeeds(const std::vector<std::string>& words, std::chrono::milliseconds limit);

}  // namespace tptrain::launch
