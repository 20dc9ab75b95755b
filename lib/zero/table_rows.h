// An embedding's table where only rows of it are wanted: the rows of one micro-batch's tokens go
// over dp instead of the table, which is much larger, and would be the first thing that a step
// waits for and the last that it sends. Each rank has the rows of its shard. In the forward it
// gives them to whoever looks them up; in the backward it gets the gradients of what falls into it,
// and adds them up in an order that the tokens alone decide. Knows nothing of what else is in a
// gradient, nor of whether somebody holds the whole table.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "comm/communicator.h"
#include "zero/bucket_state.h"
#include "zero/options.h"

namespace tptrain::zero {

class TableRows {
 public:
  /// `state`, of a bucket that is_table(), and `dp` must outlive it.
  TableRows(BucketState& state, comm::Communicator& dp, LookupRows lookup_rows)
      : state_(state), dp_(dp), lookup_rows_(lookup_rows) {}

  const parameters::Parameter& table() const { return *state_.bucket->parameters[0]; }

  /// What the coming micro-batch looks up, or undefined; as many on every dp rank. Where rows of
  /// them are not worth it, as if nothing were announced.
  void announce(const at::Tensor& ids);
  /// The coming look-up, and its gradient, go as rows.
  bool active() const { return ids_.defined(); }
  /// Begins to gather the ids, unless that is done. Collective over dp, as are the next two.
  void gather_ids();
  /// The rows of the announced ids, [T, H], zeros for ids of other tp ranks' slices: from shards of
  /// the table that are up to date. `meanwhile` is called when they are on their way.
  at::Tensor look_up(const std::function<void()>& meanwhile);
  /// Adds the gradients of these rows, of all ranks, to the shard of the reduced gradient, which
  /// `meanwhile` may still change: it is called when they are on their way.
  void add(const at::Tensor& rows, const std::function<void()>& meanwhile);
  /// The micro-batch is over, or dropped.
  void end() { announce({}); }

 private:
  struct Own {
    int64_t first = 0;  // row of the table
    int64_t count = 0;
  };
  Own own() const;
  /// [count, H] of a [shard] tensor.
  at::Tensor rows_of(const at::Tensor& shard) const;
  const at::Tensor& all_ids();

  BucketState& state_;
  comm::Communicator& dp_;
  LookupRows lookup_rows_;
  at::Tensor ids_;      // [T], contiguous
  at::Tensor all_ids_;  // [dp * T], when its gather has begun
  std::unique_ptr<comm::Work> ids_in_flight_;
};

}  // namespace tptrain::zero
