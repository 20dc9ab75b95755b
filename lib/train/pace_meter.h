// The time of a rank's own work between two audits, from the phases of its steps (stragglers.h says
// what is made of it).
#pragma once

#include <ATen/core/Tensor.h>

#include "base/step_clock.h"
#include "comm/mpi_session.h"
#include "train/stragglers.h"

namespace tptrain::train {

class PaceMeter {
 public:
  explicit PaceMeter(at::Device device) : device_(device) {}

  /// The step has been made.
  void add(const StepClock::Seconds& phases);
  /// Of all ranks, since the last one; empty before the first step, and of one rank. Collective.
  PaceReport report(comm::MpiSession& session);

 private:
  at::Device device_;
  RankPace pace_;
};

}  // namespace tptrain::train
