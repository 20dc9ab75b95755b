// Views and counts of every part, made once; a part's way is then a few copies and two collectives
// each way.
#include "zero/rank_matrices.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace tptrain::zero {
namespace {

std::vector<int64_t> transposed(const std::vector<int64_t>& counts, int size) {
  std::vector<int64_t> result(counts.size());
  for (int s = 0; s < size; ++s) {
    for (int r = 0; r < size; ++r)
      result[static_cast<size_t>(r * size + s)] = counts[static_cast<size_t>(s * size + r)];
  }
  return result;
}

/// Tensors one behind the other.
class Cursor {
 public:
  explicit Cursor(const at::Tensor& memory) : memory_(memory) {}
  at::Tensor take(int64_t count) {
    next_ += count;
    return memory_.narrow(0, next_ - count, count);
  }
  at::Tensor all() const { return memory_.narrow(0, 0, next_); }

 private:
  at::Tensor memory_;
  int64_t next_ = 0;
};

}  // namespace

void RankMatrices::Copies::forth() {
  if (!here.empty()) at::_foreach_copy_(there, here);
}

void RankMatrices::Copies::back() {
  if (!here.empty()) at::_foreach_copy_(here, there);
}

RankMatrices::RankMatrices(const ParamBuckets& buckets, const std::vector<BucketState>& states,
                           const MatrixGrid& grid, comm::Communicator& tp, comm::Communicator& dp)
    : buckets_(buckets),
      grid_(grid),
      tp_(tp),
      dp_(dp),
      shares_(share_matrices(buckets.buckets(), grid)) {
  const MatrixMemory memory = matrix_memory(buckets.buckets(), grid);
  largest_ = memory.largest;
  const at::Device device = buckets.options().device;
  const auto on_device = at::TensorOptions().device(device);
  work_ = at::zeros({memory.work}, on_device.dtype(at::kFloat));
  const auto on_the_way = on_device.dtype(optim::NewtonSchulz::dtype_on(device));
  sent_ = at::zeros({memory.sent}, on_the_way);
  received_ = at::zeros({memory.received}, on_the_way);
  slices_ = at::zeros({memory.slices}, on_the_way);
  over_tp_ = at::zeros({memory.over_tp}, on_the_way);
  for (size_t i = 0; i < shares_.size(); ++i) {
    const auto part = static_cast<size_t>(shares_[i].part);
    if (parts_.size() <= part) parts_.resize(part + 1);
    parts_[part].shares.push_back(i);
  }
  const int blocks = blocks_per_part(buckets.buckets(), grid);
  int part = -1;
  int64_t next = 0;
  for (const BucketState& state : states) {
    if (state.bucket->unit != optim::Unit::matrix) continue;
    if (state.bucket->block / blocks != part) next = 0;
    part = state.bucket->block / blocks;
    work_begins_.emplace(state.bucket, next);
    held_begins_.emplace(state.bucket, state.held_begin);
    next += state.held_end - state.held_begin;
  }
}

at::Tensor RankMatrices::work_of(const BucketState& state) const {
  return work_.narrow(0, work_begins_.at(state.bucket), state.held_end - state.held_begin);
}

void RankMatrices::prepare() {
  if (!extents_.empty()) return;
  gather_extents();
  for (Part& part : parts_) {
    const std::vector<at::Tensor> slices = lay_out_slices(part);
    connect_dp(part, slices);
    connect_tp(part);
    find_batches(part, slices);
  }
}

// A rank knows its own slices alone: heads may be shared out unevenly.
void RankMatrices::gather_extents() {
  std::vector<int64_t> own;
  for (const MatrixShare& share : shares_) {
    const sharding::ShardSpec& spec = share.slice->spec;
    own.push_back(spec.whole() ? 0 : spec.begin);
    own.push_back(spec.whole() ? share.rows() : spec.end);
  }
  const int64_t words = static_cast<int64_t>(own.size());
  at::Tensor all = at::tensor(own, at::kLong).to(work_.device());
  if (grid_.tp_size > 1) {
    const at::Tensor input = all;
    all = at::empty({grid_.tp_size * words}, input.options());
    tp_.all_gather(all, input);
  }
  const at::Tensor on_host = all.cpu();
  const int64_t* values = on_host.const_data_ptr<int64_t>();
  extents_.resize(shares_.size());
  for (size_t i = 0; i < shares_.size(); ++i) {
    for (int r = 0; r < grid_.tp_size; ++r) {
      const int64_t* extent = values + r * words + 2 * static_cast<int64_t>(i);
      extents_[i].push_back({.begin = extent[0], .end = extent[1]});
    }
  }
}

int64_t RankMatrices::numel_on(size_t share, int tp_rank) const {
  const Extent& extent = extents_[share][static_cast<size_t>(tp_rank)];
  const bool by_columns = shares_[share].slice->spec.dim == 1;
  return (extent.end - extent.begin) *
         (by_columns ? shares_[share].rows() : shares_[share].columns());
}

RankMatrices::Piece RankMatrices::piece_of(const MatrixShare& share, int dp_rank) const {
  auto [begin, end] = buckets_.shard_range(*share.bucket, dp_rank);
  if (grid_.dp_size == 1) std::tie(begin, end) = std::pair(int64_t{0}, share.bucket->numel);
  const int64_t first = std::max(begin, share.bucket_begin);
  const int64_t last = std::min(end, share.bucket_begin + share.numel());
  return {.begin = first - share.bucket_begin, .count = std::max<int64_t>(0, last - first)};
}

/// This rank's piece of a slice in `work`.
at::Tensor RankMatrices::work_piece(const MatrixShare& share) const {
  const Piece piece = piece_of(share, dp_.rank());
  const int64_t in_bucket = share.bucket_begin + piece.begin;
  return work_.narrow(0, work_begins_.at(share.bucket) + in_bucket - held_begins_.at(share.bucket),
                      piece.count);
}

bool RankMatrices::is_here_over_dp(const MatrixShare& share) const {
  return grid_.dp_size == 1 || share.dp_owner == dp_.rank();
}

/// By the tp rank that they go to; of each of the part's shares, undefined where it is another dp
/// rank's.
std::vector<at::Tensor> RankMatrices::lay_out_slices(Part& part) {
  std::vector<at::Tensor> slices(part.shares.size());
  if (grid_.ranks() == 1) return slices;
  Cursor memory(slices_);
  for (int owner = 0; owner < grid_.tp_size; ++owner) {
    for (size_t i = 0; i < part.shares.size(); ++i) {
      const MatrixShare& share = shares_[part.shares[i]];
      if (share.tp_owner == owner && is_here_over_dp(share)) slices[i] = memory.take(share.numel());
    }
  }
  part.over_tp.sent = memory.all();
  return slices;
}

void RankMatrices::connect_dp(Part& part, const std::vector<at::Tensor>& slices) {
  if (grid_.ranks() == 1) return;
  const auto size = static_cast<size_t>(grid_.dp_size);
  if (size == 1) {
    for (size_t i = 0; i < slices.size(); ++i) {
      if (slices[i].numel() == 0) continue;
      part.out_of_work.here.push_back(work_piece(shares_[part.shares[i]]));
      part.out_of_work.there.push_back(slices[i]);
    }
    return;
  }
  Cursor sent(sent_), received(received_);
  part.over_dp.counts.assign(size * size, 0);
  for (int other = 0; other < grid_.dp_size; ++other) {
    for (size_t i = 0; i < slices.size(); ++i) {
      const MatrixShare& share = shares_[part.shares[i]];
      const Piece piece = piece_of(share, other);
      part.over_dp
          .counts[static_cast<size_t>(other) * size + static_cast<size_t>(share.dp_owner)] +=
          piece.count;
      const int64_t own = piece_of(share, dp_.rank()).count;
      if (share.dp_owner == other && own > 0) {
        part.out_of_work.here.push_back(work_piece(share));
        part.out_of_work.there.push_back(sent.take(own));
      }
      if (share.dp_owner == dp_.rank() && piece.count > 0) {
        part.into_slices.here.push_back(received.take(piece.count));
        part.into_slices.there.push_back(slices[i].narrow(0, piece.begin, piece.count));
      }
    }
  }
  part.over_dp.sent = sent.all();
  part.over_dp.received = received.all();
  part.over_dp.back_counts = transposed(part.over_dp.counts, grid_.dp_size);
}

void RankMatrices::connect_tp(Part& part) {
  if (grid_.tp_size == 1) return;
  const auto size = static_cast<size_t>(grid_.tp_size);
  part.over_tp.counts.assign(size * size, 0);
  for (const size_t i : part.shares) {
    if (!is_here_over_dp(shares_[i])) continue;
    for (int sender = 0; sender < grid_.tp_size; ++sender)
      part.over_tp
          .counts[static_cast<size_t>(sender) * size + static_cast<size_t>(shares_[i].tp_owner)] +=
          numel_on(i, sender);
  }
  part.over_tp.back_counts = transposed(part.over_tp.counts, grid_.tp_size);
}

void RankMatrices::find_batches(Part& part, const std::vector<at::Tensor>& slices) {
  std::vector<size_t> places;  // of this rank's, among the part's shares
  std::vector<optim::WholeMatrix> matrices;
  for (size_t i = 0; i < part.shares.size(); ++i) {
    const MatrixShare& share = shares_[part.shares[i]];
    if (!is_here_over_dp(share) || (grid_.tp_size > 1 && share.tp_owner != tp_.rank())) continue;
    places.push_back(i);
    matrices.push_back({.rows = share.rows(), .columns = share.columns(), .slices = {}});
  }
  Cursor memory(over_tp_);
  for (int sender = 0; sender < grid_.tp_size; ++sender) {
    for (size_t k = 0; k < places.size(); ++k) {
      const size_t index = part.shares[places[k]];
      const MatrixShare& share = shares_[index];
      const at::Tensor values = grid_.tp_size > 1    ? memory.take(numel_on(index, sender))
                                : grid_.ranks() == 1 ? work_piece(share)
                                                     : slices[places[k]];
      const Extent& extent = extents_[index][static_cast<size_t>(sender)];
      const bool by_columns = share.slice->spec.dim == 1;
      const int64_t length = extent.end - extent.begin;
      if (length == 0) continue;
      matrices[k].slices.push_back({.values = by_columns ? values.view({share.rows(), length})
                                                         : values.view({length, share.columns()}),
                                    .dim = by_columns ? 1 : 0,
                                    .begin = extent.begin});
    }
  }
  part.over_tp.received = memory.all();
  std::map<int, optim::MatrixBatch> by_batch;
  for (size_t k = 0; k < places.size(); ++k)
    by_batch[shares_[part.shares[places[k]]].batch].push_back(std::move(matrices[k]));
  for (auto& [batch, of_batch] : by_batch) part.batches.push_back(std::move(of_batch));
}

void RankMatrices::gather(int index) {
  Part& part = parts_.at(static_cast<size_t>(index));
  if (part.shares.empty()) return;
  part.out_of_work.forth();
  if (grid_.dp_size > 1) {
    dp_.all_to_all(part.over_dp.received, part.over_dp.sent, part.over_dp.counts);
    part.into_slices.forth();
  }
  if (grid_.tp_size > 1)
    tp_.all_to_all(part.over_tp.received, part.over_tp.sent, part.over_tp.counts);
}

const std::vector<optim::MatrixBatch>& RankMatrices::batches(int part) const {
  return parts_.at(static_cast<size_t>(part)).batches;
}

void RankMatrices::scatter(int index) {
  Part& part = parts_.at(static_cast<size_t>(index));
  if (part.shares.empty()) return;
  if (grid_.tp_size > 1)
    tp_.all_to_all(part.over_tp.sent, part.over_tp.received, part.over_tp.back_counts);
  if (grid_.dp_size > 1) {
    part.into_slices.back();
    dp_.all_to_all(part.over_dp.sent, part.over_dp.received, part.over_dp.back_counts);
  }
  part.out_of_work.back();
}

}  // namespace tptrain::zero
