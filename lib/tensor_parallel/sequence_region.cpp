#include "tensor_parallel/sequence_region.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace tptrain::tensor_parallel {

namespace {

std::vector<int64_t> with_rows(const at::Tensor& tensor, int64_t rows) {
  std::vector<int64_t> shape = tensor.sizes().vec();
  shape[0] = rows;
  return shape;
}

// Two products of half the rows take longer than one of all, which tells where they are small. The
// bound is a guess: measured were 4,096 and 8,192 tokens a piece, which pay.
constexpr int64_t kTokensOfAPiece = 1024;

}  // namespace

GatheredSequence::GatheredSequence(at::Tensor whole)
    : own_(std::move(whole)), length_(own_.size(0)) {}

GatheredSequence::GatheredSequence(std::unique_ptr<comm::PiecewiseGather> gather, at::Tensor own,
                                   int tp_rank, int64_t length, at::Tensor scale)
    : gather_(std::move(gather)),
      tp_size_(static_cast<int>(gather_->whole().size(0) / own.size(0))),
      tp_rank_(tp_rank),
      length_(length),
      scale_(std::move(scale)) {
  const bool pays = gather_->in_pieces() && tp_size_ * own.size(0) == length &&
                    own.size(0) * own.size(1) >= kTokensOfAPiece;
  if (pays) own_ = std::move(own);
}

at::Tensor GatheredSequence::whole() {
  if (!gather_) return own_;
  for (int piece = 0; piece < tp_size_; ++piece) gather_->wait(piece);
  return gather_->whole().narrow(0, 0, length_);  // of the slowest dim: still contiguous
}

void GatheredSequence::for_each_part(const std::function<void(int64_t, const at::Tensor&)>& work) {
  if (!gather_ || !own_.defined()) {
    work(0, whole());
    return;
  }
  const int64_t rows = own_.size(0);
  work(tp_rank_ * rows, own_);
  for (int i = 1; i < tp_size_; ++i) {
    // The rank behind this one sends to it first.
    const int piece = (tp_rank_ - i + tp_size_) % tp_size_;
    gather_->wait(piece);
    work(piece * rows, gather_->whole().narrow(0, piece * rows, rows));
  }
}

at::Tensor ReducedSequence::finish() {
  if (!reduce_) return std::move(result_);
  at::Tensor result = reduce_->finish();
  reduce_.reset();
  return result;
}

SequenceRegion::SequenceRegion(comm::Communicator& tp, int64_t length,
                               SequenceParallel sequence_parallel)
    : tp_(tp),
      length_(length),
      sliced_(sequence_parallel == SequenceParallel::on && tp.size() > 1) {}

int64_t SequenceRegion::rows() const {
  return sliced_ ? (length_ + tp_.size() - 1) / tp_.size() : length_;
}

int64_t SequenceRegion::first_position() const { return sliced_ ? tp_.rank() * rows() : 0; }

int64_t SequenceRegion::counted_rows() const {
  return std::clamp<int64_t>(length_ - first_position(), 0, rows());
}

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

GatheredSequence SequenceRegion::start_gather(at::Tensor slice, at::Tensor scale) const {
  if (!sliced_) return GatheredSequence(std::move(slice));
  auto gather = tp_.gather_in_pieces(slice);
  return GatheredSequence(std::move(gather), std::move(slice), tp_.rank(), length_,
                          std::move(scale));
}

ReducedSequence SequenceRegion::start_reduce(
    int64_t batch, int64_t width, const at::TensorOptions& options,
    const std::function<void(int64_t, const at::Tensor&)>& product) const {
  ReducedSequence reduced;
  if (!sliced_) {
    reduced.result_ = at::empty({length_, batch, width}, options);
    product(0, reduced.result_);
    if (tp_.size() > 1) tp_.all_reduce(reduced.result_, comm::ReduceOp::sum);
    return reduced;
  }
  const int64_t piece = rows();
  reduced.reduce_ = tp_.reduce_in_pieces({piece, batch, width}, options);
  const at::Tensor& whole = reduced.reduce_->whole();
  const int64_t padded = piece * tp_.size();
  if (reduced.reduce_->in_pieces() && padded == length_ && piece * batch >= kTokensOfAPiece) {
    for (int i = 1; i <= tp_.size(); ++i) {  // own part last: it goes nowhere
      const int rank = (tp_.rank() + i) % tp_.size();
      product(rank * piece, whole.narrow(0, rank * piece, piece));
      reduced.reduce_->send(rank);
    }
    return reduced;
  }
  product(0, whole.narrow(0, 0, length_));
  if (padded != length_) whole.narrow(0, length_, padded - length_).zero_();
  for (int i = 1; i <= tp_.size(); ++i) reduced.reduce_->send((tp_.rank() + i) % tp_.size());
  return reduced;
}

}  // namespace tptrain::tensor_parallel
