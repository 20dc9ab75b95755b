#include "tensor_parallel/partition.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::tensor_parallel {

namespace {
// From this many elements a rank on, 8 more or less are less than 1 % of its work.
constexpr int64_t kLargeShare = 1024;
}  // namespace

Range share_of(int64_t size, int rank, int ranks) {
  if (ranks < 1 || rank < 0 || rank >= ranks || size < ranks) {
    throw InternalError(problem(cat("a size of ", size, " for rank ", rank, " of ", ranks))
                            .must("give every rank a part")
                            .remedy("check_tp_size tells so before a model is built."));
  }
  const int64_t unit = size % ranks != 0 && size / ranks >= kLargeShare ? 8 : 1;
  const int64_t units = (size + unit - 1) / unit;
  const int64_t each = units / ranks;
  const int64_t longer = units % ranks;
  const auto begin_of = [&](int64_t r) {
    return std::min(size, unit * (r * each + std::min(r, longer)));
  };
  return {.begin = begin_of(rank), .end = begin_of(rank + 1)};
}

}  // namespace tptrain::tensor_parallel
