// Points in long work at which it shows that it goes on and at which it may be given up: loops over
// files, documents and tensors pass one at least every second. They know neither ranks nor boards:
// whoever began the work (comm::agree) says what a point means there.
#pragma once

#include <cstdint>
#include <functional>

namespace tptrain {

/// Whether a stop that is requested gives the work up at its next point, or waits for its end.
enum class OnStop { give_up, finish };

/// Counts as progress (interruption_points_passed). Within a WorkScope of this thread: says to the
/// others from time to time that this rank is still at it; throws StopRequested where a stop is
/// requested and the scope gives up.
void interruption_point();

/// Of all threads of this process, from its start: a watchdog sees by it that something moves.
uint64_t interruption_points_passed();

/// What the points of this thread mean as long as it lives. The innermost scope counts.
class WorkScope {
 public:
  /// `still_working` is called at a point, four times a second at most.
  WorkScope(OnStop on_stop, std::function<void()> still_working);
  ~WorkScope();
  WorkScope(const WorkScope&) = delete;
  WorkScope& operator=(const WorkScope&) = delete;

 private:
  friend void interruption_point();
  WorkScope* outer_;
  OnStop on_stop_;
  std::function<void()> still_working_;
  int64_t last_said_ns_;
};

}  // namespace tptrain
