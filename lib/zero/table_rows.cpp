#include "zero/table_rows.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "kernels/kernels.h"

namespace tptrain::zero {

void TableRows::begin(const at::Tensor& ids) {
  ids_ = ids.reshape({-1}).contiguous();
  all_ids_ = at::empty({dp_.size() * ids_.size(0)}, ids_.options());
  ids_on_their_way_ = dp_.start_all_gather(all_ids_, ids_);
}

void TableRows::add(const at::Tensor& rows) {
  const int64_t hidden = table().shape[1];
  at::Tensor all = at::empty({dp_.size() * rows.size(0), hidden}, rows.options());
  dp_.all_gather(all, rows);
  ids_on_their_way_->wait();
  // The padding behind the last row is no row: ids of other tp ranks may have its numbers.
  const int64_t first = state_.shard_begin / hidden;
  const int64_t end = std::min(state_.shard_end / hidden, table().shape[0]);
  if (first < end) {
    const sharding::ShardSpec& spec = table().slices[0].spec;
    at::Tensor shard =
        state_.grad_shard.narrow(0, 0, (end - first) * hidden).view({end - first, hidden});
    kernels::accumulate_embedding_gradient(
        shard, std::move(all), all_ids_,
        {.begin = spec.begin + first, .vocab = spec.global_shape[0]});
  }
  drop();
}

void TableRows::drop() {
  if (ids_on_their_way_) ids_on_their_way_->wait();
  ids_on_their_way_.reset();
  ids_.reset();
  all_ids_.reset();
}

}  // namespace tptrain::zero
