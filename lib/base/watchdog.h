// Ends a process that makes no progress: a thread that reads a ProgressBoard and calls nothing that
// could hang with the rest (no CUDA, no MPI). It cannot tell a hung peer from a slow one: it knows
// only that this process has written nothing on its board, and passed no interruption point, for
// too long.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/progress_board.h"

namespace tptrain {

/// The rule, with the clock given: how long nothing has been written. Time in which this process
/// did not run at all (stopped and continued, a suspended job) counts as one look at most.
class StallClock {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Span = std::chrono::steady_clock::duration;

  /// `between_looks`: the time that passes from look to look where nothing holds this process up.
  StallClock(Span limit, Span between_looks);
  /// How long there has been no progress, where that is more than the phase allows.
  std::optional<Span> look(const ProgressBoard::Entry& entry, Time now);

 private:
  Span limit_;
  Span between_looks_;
  std::optional<Time> last_look_;
  uint64_t writes_ = 0;
  Span stalled_ = {};
};

/// Who says that it waits in vain, and what is known of the others.
struct StallSpeaker {
  int rank = 0;
  std::string place = {};   // " on node1 (GPU 1)", or ""
  std::string behind = {};  // who_is_behind(); "": not known
  /// What the library that moves the tensors says of itself; "": nothing.
  std::string transport = {};
};
/// "[rank 1] communication error: no progress for 600 s on node1: step 57, ...; behind is ..." and
/// what to look at; of a process that could not end after an error, that error.
std::string stall_message(const ProgressBoard::Entry& entry, const StallSpeaker& speaker,
                          std::chrono::steady_clock::duration stalled);

class Watchdog {
 public:
  struct Options {
    std::chrono::milliseconds limit;  // of a phase of the usual patience; 0: nothing is watched
    int rank = 0;
    /// Gets the board at each look, for others to see; it does not wait for anybody. Empty: nobody.
    std::function<void(const ProgressBoard::Entry&)> show = {};
    /// What is known of the other ranks, at once and without waiting for them; called when this one
    /// has waited in vain. Empty: nothing is.
    std::function<StallSpeaker()> look_around = {};
    /// Gets the message as well, after standard error has it: for the log. It may hang.
    std::function<void(const std::string&)> also_say = {};
  };
  /// Watches until destroyed. On expiry the process ends at once with ExitCode::communication, or
  /// with the code of the error it failed with; no destructor runs. `board` must outlive it.
  Watchdog(const ProgressBoard& board, Options options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// Watches by these from now on.
  void set(Options options);

 private:
  void watch();
  [[noreturn]] static void end_process(const ProgressBoard::Entry& entry, StallClock::Span stalled,
                                       const Options& options);

  const ProgressBoard& board_;
  std::mutex mutex_;
  std::condition_variable wake_;
  Options options_;
  bool changed_ = false;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace tptrain
