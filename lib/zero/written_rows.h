// Which rows of the gradient of an embedding's table a step's look-ups have written. All others are
// zeros: they need not be zeroed, read by the norm or read by the update. Of 128,256 rows of
// Llama-3's table 8,192 tokens write some 6 % at most.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "zero/bucket_state.h"

namespace tptrain::zero {

class WrittenRows {
 public:
  /// Of the first bucket's table: on CUDA, where it is whole on this rank, alone in its bucket,
  /// read by no product (a tied head writes every row) and reduced with nobody. Else nothing. Makes
  /// it known to `state` (BucketState::written_rows).
  static std::optional<WrittenRows> of(BucketState& state, bool is_tied, int ranks);

  const parameters::Parameter& table() const { return *state_->bucket->parameters[0]; }
  /// The gradient is zeros again.
  void clear();
  /// Rows `ids` (int64, any shape) have been added to.
  void add(const at::Tensor& ids);
  /// Any rows may have been.
  void add_all();

 private:
  explicit WrittenRows(BucketState& state) : state_(&state) {}
  BucketState* state_;
};

}  // namespace tptrain::zero
