// The clocks of a rank's own work between two audits (stragglers.h says what is made of them).
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <utility>

#include "comm/mpi_session.h"
#include "train/engine.h"
#include "train/stragglers.h"

namespace tptrain::train {

class PaceMeter {
 public:
  explicit PaceMeter(at::Device device) : device_(device) {}

  /// As long as it lives this rank reads a batch, until has_read(), and then waits for the others.
  class Reading {
   public:
    explicit Reading(PaceMeter& meter) : meter_(meter) { meter.read_until_ = begin_; }
    ~Reading();
    Reading(const Reading&) = delete;

   private:
    PaceMeter& meter_;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  };
  void has_read() { read_until_ = std::chrono::steady_clock::now(); }

  /// Makes the step; what of its time this rank was in collectives is no work of its own.
  template <typename Step>
  auto step(Engine& engine, const Step& make) {
    const auto begin = std::chrono::steady_clock::now();
    const double in_collectives = engine.seconds_in_collectives();
    auto numbers = make();
    took(std::chrono::steady_clock::now() - begin,
         engine.seconds_in_collectives() - in_collectives);
    return numbers;
  }

  /// Of all ranks, since the last one; empty before the first step. Collective.
  PaceReport report(comm::MpiSession& session);

 private:
  void took(std::chrono::duration<double> step, double waiting_s);

  at::Device device_;
  RankPace pace_;
  std::chrono::steady_clock::time_point read_until_;
};

}  // namespace tptrain::train
