// The look-up's share of the gradient of an embedding's table on its way over dp: the rows of this
// step's tokens, instead of a table that is zero almost everywhere. Each rank gets the rows of all
// and adds to its shard what falls there, in an order that the tokens alone decide. Knows nothing
// of what else is in the gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "comm/communicator.h"
#include "zero/bucket_state.h"

namespace tptrain::zero {

class TableRows {
 public:
  /// `state`, of a bucket that is_table(), and `dp` must outlive it.
  TableRows(BucketState& state, comm::Communicator& dp) : state_(state), dp_(dp) {}

  const sharding::Parameter& table() const { return *state_.bucket->parameters[0]; }
  /// Begins to gather the ids [T]. Collective over dp, as are the other two.
  void begin(const at::Tensor& ids);
  /// Adds the rows [T, H] of all ranks to the shard of the reduced gradient.
  void add(const at::Tensor& rows);
  /// Instead of add(): the step is dropped.
  void drop();

 private:
  BucketState& state_;
  comm::Communicator& dp_;
  at::Tensor ids_;      // [T], contiguous
  at::Tensor all_ids_;  // [dp * T]
  std::unique_ptr<comm::Work> ids_on_their_way_;
};

}  // namespace tptrain::zero
