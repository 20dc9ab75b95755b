// Work on other threads of this process: several at one list, and one job that goes on while its
// owner does something else. Whoever waits here shows progress where they make some (interruption
// points), and only then: a watchdog still sees a disk that hangs.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <string>
#include <vector>

#include "base/interruption.h"

namespace tptrain {

/// Cores that this process may run on (its affinity mask), at least 1.
int usable_cores();
/// Which ones, for other processes of this host, and how many there are in some of those sets.
std::string usable_core_set();
int cores_in_any(const std::vector<std::string>& core_sets);

/// Where no thread can be had, the work waits until its result is asked for.
inline constexpr auto kBesideIfPossible = std::launch::async | std::launch::deferred;

/// Waits; passes an interruption point whenever another thread has. The future is there to be got
/// afterwards, except where the point throws.
template <typename Future>
void await(const Future& future) {
  constexpr std::chrono::milliseconds kLook{100};
  uint64_t seen = interruption_points_passed();
  while (future.wait_for(kLook) == std::future_status::timeout) {
    if (interruption_points_passed() == seen) continue;
    interruption_point();
    seen = interruption_points_passed();
  }
}

/// Calls work(0) ... work(count - 1), on `threads` threads of which this is one. Throws the first
/// that was thrown, after all have ended.
void in_parallel(int64_t count, int threads, const std::function<void(int64_t)>& work);

/// low: what it runs beside comes first, and so for threads that it starts. Not for what others
/// soon wait for.
enum class Priority { usual, low };

/// One piece of work on a thread of its own.
class BackgroundJob {
 public:
  explicit BackgroundJob(Priority priority, std::function<void()> work);
  /// Waits for its end.
  ~BackgroundJob() = default;

  /// Whether get() returns at once (or there was no thread to be had, and it does the work).
  bool is_done() const;
  /// Of a work that is done.
  bool failed() const { return failed_; }
  /// Waits, and throws what the work threw. Once.
  void get();

 private:
  std::atomic<bool> failed_ = false;
  std::future<void> future_;  // goes first
};

}  // namespace tptrain
