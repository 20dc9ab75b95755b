#include "launch/layout.h"

#include <algorithm>

#include "base/text.h"

namespace tptrain::launch {

Layout layout_of(const config::RunConfig& run) {
  return {.tp_size = run.parallel.tp_size,
          .dp_size = run.parallel.dp_size,
          .micro_batch_size = run.train.micro_batch_size,
          .global_batch_size = run.train.global_batch_size,
          .grad_accum_steps = run.train.grad_accum_steps};
}

std::optional<Ranks> ranks_for(const Layout& layout, int64_t wanted, int64_t least,
                               int64_t available) {
  if (available >= wanted) return Ranks{.count = wanted};
  const int64_t dp_wanted = wanted / layout.tp_size;
  const int64_t global_batch =
      layout.global_batch_size > 0
          ? layout.global_batch_size
          : layout.micro_batch_size * dp_wanted * std::max<int64_t>(1, layout.grad_accum_steps);
  for (int64_t dp = std::min(available / layout.tp_size, dp_wanted - 1); dp > 0; --dp) {
    const int64_t count = dp * layout.tp_size;
    if (count < least) return std::nullopt;
    if (global_batch % (layout.micro_batch_size * dp) != 0) continue;
    Ranks ranks{.count = count};
    if (layout.dp_size > 0) ranks.sets.push_back(cat("parallel.dp_size=", dp));
    if (layout.global_batch_size == 0)
      ranks.sets.push_back(
          cat("train.grad_accum_steps=", global_batch / (layout.micro_batch_size * dp)));
    return ranks;
  }
  return std::nullopt;
}

}  // namespace tptrain::launch
