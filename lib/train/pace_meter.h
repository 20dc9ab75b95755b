// The time of a rank's own work between two audits, from the phases of its steps (stragglers.h says
// what is made of it).
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>

#include "base/step_clock.h"
#include "comm/mpi_session.h"
#include "train/stragglers.h"

namespace tptrain::train {

class PaceMeter {
 public:
  explicit PaceMeter(at::Device device) : device_(device) {}

  /// Its batch is read: from here on until has_agreed() this rank waits for the others, which the
  /// phases count for the batch as well.
  void has_read() { read_at_ = std::chrono::steady_clock::now(); }
  void has_agreed();
  /// The step has been made.
  void add(const StepClock::Seconds& phases);
  /// Of all ranks, since the last one; empty before the first step, and of one rank. Collective.
  PaceReport report(comm::MpiSession& session);

 private:
  at::Device device_;
  RankPace pace_;
  std::chrono::steady_clock::time_point read_at_;
  double agreeing_s_ = 0;  // of the batch of the step under way
};

}  // namespace tptrain::train
