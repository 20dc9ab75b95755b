// Shows the work under way (base/work.h) where it takes longer than two seconds: a bar on a
// terminal, elsewhere a line now and then. A thread that reads and prints; it does no work.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/terminal_line.h"
#include "base/work.h"

namespace tptrain {

/// "45s", "3m 5s", "2h 10m", "3d 4h"
std::string duration_text(double seconds);

/// "[====>     ] " of 24 cells.
std::string bar_text(double fraction);

/// "reading the weights: 1.20 GiB of 5.60 GiB (21 %), 850.00 MiB/s, ETA 5s"; "evaluating: 3 of 12
/// (25 %), 0.15/s, ETA 1m 2s"; "building the model: 12s so far".
std::string work_text(const WorkState& work, double elapsed_s);

/// When a line is due, with the clock given: two seconds after the work began, then every fifteen.
class WorkLines {
 public:
  using Time = std::chrono::steady_clock::time_point;
  bool due(const WorkState& work, Time now);

 private:
  uint64_t number_ = 0;
  std::optional<Time> last_;
};

class WorkDisplay {
 public:
  using Say = std::function<void(const std::string&)>;
  /// `say` gets the lines where `line` is no terminal, `note` where it is one: whoever reads a log
  /// learns from them as well what is under way. All outlive this.
  /// One at a time.
  WorkDisplay(TerminalLine& line, Say say, Say note = {});
  ~WorkDisplay();
  WorkDisplay(const WorkDisplay&) = delete;
  WorkDisplay& operator=(const WorkDisplay&) = delete;

 private:
  void watch();
  void hide();
  void show(const WorkState& work);

  TerminalLine& line_;
  Say say_;
  Say note_;
  WorkLines lines_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;
  bool shown_ = false;
  std::thread thread_;
};

}  // namespace tptrain
