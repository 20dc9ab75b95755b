// What ZeRO is asked for: words that every part of it shares.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "base/step_clock.h"
#include "config/run_config.h"

namespace tptrain::zero {

/// A micro-batch's place within its step: in the backward of the last one gradients become complete
/// block by block, and set out over dp beside it.
enum class MicroBatchPlace { before_last, last };

/// Whether the embedding's look-up sends rows over dp, those of the micro-batch's tokens, and not
/// the table: forward, where the table is still on its way (the same bits), and its gradient (sums
/// in another order, equal within rounding). automatic: where the rows of all dp ranks are at most
/// half of the table's gradient.
enum class LookupRows { automatic, always };

/// What the state has of parameters that do not train: their values; or nothing, where whoever
/// loads it has them from elsewhere.
enum class FrozenValues { in_state, elsewhere };

struct Options {
  int zero_stage = 1;  // as the buckets'
  config::OptimizerConfig optimizer = {};
  /// Gradients are summed over dp after every micro-batch (stages 2 and 3 always) or once a step.
  bool reduce_per_micro_batch = false;
  at::ScalarType reduce_dtype = at::kFloat;  // of gradients on their way over dp: fp32 or bf16
  uint64_t seed = 0;                         // of stochastic rounding
  LookupRows lookup_rows = LookupRows::automatic;
  bool bounded = false;  // updates have the bounds of set_bounds()
  FrozenValues frozen_values = FrozenValues::in_state;
  StepClock* clock = nullptr;  // gets the time of norm and update where the host does them
};

}  // namespace tptrain::zero
