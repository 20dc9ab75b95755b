// With how many ranks a run is started where there are fewer than it was given: on as many as its
// layout allows, with the same global batch. Plain arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/run_config.h"

namespace tptrain::launch {

/// What the run file says of it; 0: not said.
struct Layout {
  int64_t tp_size = 1;
  int64_t dp_size = 0;
  int64_t micro_batch_size = 1;
  int64_t global_batch_size = 0;
  int64_t grad_accum_steps = 0;
};
Layout layout_of(const config::RunConfig& run);

struct Ranks {
  int64_t count = 0;
  /// --set options that keep the global batch what it is with `wanted` ranks.
  std::vector<std::string> sets = {};
};

/// `wanted` where so many are available; else the most that are, at least `least`: whole tp groups
/// among which the global batch can be divided. Nothing where there is no such number.
std::optional<Ranks> ranks_for(const Layout& layout, int64_t wanted, int64_t least,
                               int64_t available);

}  // namespace tptrain::launch
