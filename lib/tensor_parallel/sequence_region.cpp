#include "tensor_parallel/sequence_region.h"

#include <ATen/ATen.h>

namespace tptrain::tensor_parallel {

namespace {

std::vector<int64_t> with_rows(const at::Tensor& tensor, int64_t rows) {
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape[0] = rows;
  return shape;
}

}  // namespace

SequenceRegion::SequenceRegion(comm::Communicator& tp, int64_t length,
                               SequenceParallel sequence_parallel)
    : tp_(tp),
      length_(length),
      sliced_(sequence_parallel == SequenceParallel::on && tp.size() > 1) {}

int64_t SequenceRegion::rows() const {
  return sliced_ ? (length_ + tp_.size() - 1) / tp_.size() : length_;
}

int64_t SequenceRegion::first_position() const { return sliced_ ? tp_.rank() * rows() : 0; }

at::Tensor SequenceRegion::gather(const at::Tensor& slice) const {
  if (!sliced_) return slice;
  at::Tensor whole = at::empty(with_rows(slice, tp_.size() * rows()), slice.options());
  tp_.all_gather(whole, slice);
  return whole.narrow(0, 0, length_);  // of the slowest dim: still contiguous
}

at::Tensor SequenceRegion::reduce(at::Tensor partial) const {
  if (tp_.size() == 1) return partial;
  if (!sliced_) {
    tp_.all_reduce(partial, comm::ReduceOp::sum);
    return partial;
  }
  const int64_t padded_rows = tp_.size() * rows();
  if (padded_rows != length_) {
    at::Tensor padded = at::empty(with_rows(partial, padded_rows), partial.options());
    padded.narrow(0, 0, length_).copy_(partial);
    padded.narrow(0, length_, padded_rows - length_).zero_();
    partial = padded;
  }
  at::Tensor slice = at::empty(with_rows(partial, rows()), partial.options());
  tp_.reduce_scatter(slice, partial, comm::ReduceOp::sum);
  return slice;
}

}  // namespace tptrain::tensor_parallel
