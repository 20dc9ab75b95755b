#include "zero/table_rows.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

#include "kernels/kernels.h"
#include "zero/layout.h"

namespace tptrain::zero {

void TableRows::announce(const at::Tensor& ids) {
  if (ids_in_flight_) ids_in_flight_->wait();
  ids_in_flight_.reset();
  all_ids_.reset();
  ids_.reset();
  if (!ids.defined()) return;
  const Bucket& bucket = *state_.bucket;
  if (lookup_rows_ == LookupRows::always ||
      lookup_goes_as_rows(bucket, dp_.size(), ids.numel(), bucket.data.scalar_type()))
    ids_ = ids.reshape({-1}).contiguous();
}

void TableRows::gather_ids() {
  if (all_ids_.defined()) return;
  all_ids_ = at::empty({dp_.size() * ids_.size(0)}, ids_.options());
  ids_in_flight_ = dp_.start_all_gather(all_ids_, ids_);
}

const at::Tensor& TableRows::all_ids() {
  gather_ids();
  ids_in_flight_->wait();
  return all_ids_;
}

// The padding behind the last row is no row: ids of other tp ranks may have its numbers.
TableRows::Own TableRows::own() const {
  const int64_t hidden = table().shape[1];
  const int64_t first = state_.shard_begin / hidden;
  const int64_t end = std::min(state_.shard_end / hidden, table().shape[0]);
  return {.first = first, .count = std::max<int64_t>(0, end - first)};
}

at::Tensor TableRows::rows_of(const at::Tensor& shard) const {
  const int64_t hidden = table().shape[1];
  return shard.narrow(0, 0, own().count * hidden).view({own().count, hidden});
}

at::Tensor TableRows::look_up(const std::function<void()>& meanwhile) {
  const sharding::ShardSpec& spec = table().slices[0].spec;
  const at::Tensor& ids = all_ids();
  // Of each row one rank has the value and all others zeros: their sum is the value.
  const at::Tensor found =
      own().count == 0 ? at::zeros({ids.size(0), table().shape[1]}, state_.data_shard.options())
                       : kernels::embedding_rows(
                             rows_of(state_.data_shard), ids,
                             {.begin = spec.begin + own().first, .vocab = spec.global_shape[0]});
  at::Tensor rows = at::empty({ids_.size(0), table().shape[1]}, found.options());
  const auto in_flight = dp_.start_reduce_scatter(rows, found, comm::ReduceOp::sum);
  meanwhile();
  in_flight->wait();
  return rows;
}

void TableRows::add(const at::Tensor& rows, const std::function<void()>& meanwhile) {
  at::Tensor all = at::empty({dp_.size() * rows.size(0), rows.size(1)}, rows.options());
  const auto in_flight = dp_.start_all_gather(all, rows);
  const at::Tensor& ids = all_ids();
  const kernels::TokenOrder order = kernels::order_of_tokens(ids);
  meanwhile();
  in_flight->wait();
  if (own().count == 0) return;
  const sharding::ShardSpec& spec = table().slices[0].spec;
  at::Tensor shard = rows_of(state_.grad_shard);
  kernels::accumulate_embedding_gradient(
      shard, std::move(all), ids,
      {.begin = spec.begin + own().first, .vocab = spec.global_shape[0]}, order);
}

}  // namespace tptrain::zero
