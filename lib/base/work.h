// What this process is at that takes its time, for whoever waits: a name, how much there is to do
// and how much is done. Written where the work is done, read by a display. Files' bytes are counted
// where they are read and written (base/files.h), so that work on files need only say how many.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace tptrain {

/// none: how much there is nobody knows. parts: batches, tensors.
enum class WorkUnit { none, bytes, parts };

struct WorkState {
  uint64_t number = 0;  // of this work, in this process
  std::string what = {};
  WorkUnit unit = WorkUnit::none;
  int64_t total = 0;
  int64_t done = 0;
  std::chrono::steady_clock::time_point begun = {};
};

/// As long as it lives this is what the process is at. One within another takes its place until it
/// ends.
class Work {
 public:
  /// `what` reads well alone: "reading the weights".
  explicit Work(std::string what, WorkUnit unit = WorkUnit::none, int64_t total = 0);
  ~Work();
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;
};

/// Counts for the innermost work, where that is in this unit, and is an interruption point
/// (base/interruption.h). Any thread, some nanoseconds.
void work_done(WorkUnit unit, int64_t amount);
std::optional<WorkState> current_work();
/// Called whenever a work has ended, before what follows it; replaces the observer before. Empty:
/// none, and no call is under way any more.
void observe_end_of_work(std::function<void()> observer);

}  // namespace tptrain
