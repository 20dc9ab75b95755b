#include "zero/written_rows.h"

#include <ATen/ATen.h>

#include "kernels/cuda/stream.h"
#include "zero/cuda/passes.h"

namespace tptrain::zero {

std::optional<WrittenRows> WrittenRows::of(BucketState& state, bool is_tied, int ranks) {
  const Bucket& bucket = *state.bucket;
  if (is_tied || ranks > 1 || !bucket.trains || bucket.parameters.size() != 1) return std::nullopt;
  const parameters::Parameter& table = *bucket.parameters[0];
  if (table.role != parameters::Role::vocab_parallel || !table.main_grad.is_cuda() ||
      table.main_grad.scalar_type() != at::kFloat)
    return std::nullopt;
  // What the memory holds before the first step counts as written.
  state.written_rows = at::ones({table.shape[0]}, table.main_grad.options().dtype(at::kByte));
  return WrittenRows(state);
}

void WrittenRows::clear() {
  at::Tensor gradient = table().main_grad;
  cuda::clear_rows({.data = gradient.mutable_data_ptr<float>(),
                    .written = state_->written_rows.mutable_data_ptr<uint8_t>(),
                    .rows = gradient.size(0),
                    .row_elements = gradient.size(1)},
                   kernels::cuda::stream_of(gradient));
  kernels::cuda::check_launch("clear_rows");
}

void WrittenRows::add(const at::Tensor& ids) {
  state_->written_rows.index_fill_(0, ids.reshape({-1}), 1);
}

void WrittenRows::add_all() { state_->written_rows.fill_(1); }

}  // namespace tptrain::zero
