// What this process is doing just now, written by the thread that does it and read by a watchdog:
// the phase, the step, the last collective. Every write counts as progress. A write costs some tens
// of nanoseconds; nothing is kept but the newest.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/step_clock.h"

namespace tptrain {

class ProgressBoard {
 public:
  struct Entry {
    uint64_t writes = 0;          // rises with every write
    std::string_view phase = {};  // "" before the first
    int64_t step = -1;            // -1: none
    double patience = 1;
    std::string axis = {};  // of the last collective; "": none yet
    std::string_view call = {};
    int64_t bytes = 0;
    int64_t collectives = 0;   // the last one's number, from 1
    std::string failure = {};  // "": none
    ExitCode failure_code = ExitCode::internal;
  };

  ProgressBoard() = default;
  ProgressBoard(const ProgressBoard&) = delete;
  ProgressBoard& operator=(const ProgressBoard&) = delete;

  /// `phase` is a literal, as "evaluation"; it reads well after "step 7, ". `patience`: how long it
  /// may go without progress, as a multiple of the watchdog's limit.
  void enter(std::string_view phase, int64_t step = -1, double patience = 1);
  /// A collective is about to begin. `call` is a literal; `axis` is copied, its first 15
  /// characters. `bytes` are those of the full tensor.
  void collective(std::string_view axis, std::string_view call, int64_t bytes);
  /// Something came to its end: a step's numbers are here, a collective is done.
  void advance();

  /// This process is about to end with this error, once its objects are destroyed. Should that
  /// hang (a peer is gone), the watchdog says the error and ends the process with its code.
  void fail(ExitCode code, std::string message);

  Entry read() const;

  /// Of the thread that does the steps.
  StepClock& clock() { return clock_; }

 private:
  mutable std::mutex mutex_;
  uint64_t writes_ = 0;
  std::string_view phase_;
  int64_t step_ = -1;
  double patience_ = 1;
  std::array<char, 16> axis_ = {};  // ends with a zero
  std::string_view call_;
  int64_t bytes_ = 0;
  int64_t collectives_ = 0;
  std::string failure_;
  ExitCode failure_code_ = ExitCode::internal;
  StepClock clock_;
};

/// "step 57, forward and backward, last collective "tp: all_gather of 67.1 MB, number 1234"".
std::string describe(const ProgressBoard::Entry& entry);

}  // namespace tptrain
