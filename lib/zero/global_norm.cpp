#include "zero/global_norm.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <utility>

namespace tptrain::zero {
namespace {

// Views of the shard range in every stage, so that stages agree bitwise. Each element counts once
// over dp because shards are disjoint, once over tp because exactly one tp rank owns it; the second
// group is of copies that another tp rank owns: not in the norm, but in the finite flag. found:
// what need not be read, or null.
SumsOfSquares squares_of(const std::vector<BucketState>& states, const GradientReducer& reducer,
                         const ProductSquares* found, at::Device device) {
  SumsOfSquares::Groups views(2), flags(2), written_rows(2);
  std::vector<std::vector<SumsOfSquares::Found>> of_products(2);
  for (const BucketState& state : states) {
    if (!state.bucket->trains) continue;
    for (const BucketPiece& piece : pieces_of(*state.bucket, state.shard_begin, state.shard_end)) {
      const size_t group = piece.slice->owned ? 0 : 1;
      const at::Tensor squares = found != nullptr ? found->of(*piece.parameter) : at::Tensor();
      if (squares.defined()) {
        if (piece.slice == &piece.parameter->slices.front())  // all of its slices at once
          of_products[group].push_back({squares, reducer.flag_for_norm(*piece.parameter)});
        continue;
      }
      views[group].push_back(
          state.grad_shard.narrow(0, piece.bucket_begin - state.shard_begin, piece.count));
      flags[group].push_back(reducer.flag_for_norm(*piece.parameter));
      written_rows[group].push_back(state.written_rows);  // of a bucket with one piece
    }
  }
  return SumsOfSquares(std::move(views), device, std::move(flags), std::move(written_rows),
                       std::move(of_products));
}

at::Tensor indices(int64_t parameters, at::Device device) {
  at::Tensor indices = step_tensors(parameters).parameter_indices.zeros(device);
  return at::arange_out(indices, parameters);
}

}  // namespace

GlobalNorm::GlobalNorm(const ParamBuckets& buckets, const std::vector<BucketState>& states,
                       const GradientReducer& reducer, comm::Communicator& tp,
                       comm::Communicator& dp)
    : reducer_(reducer),
      tp_(tp),
      dp_(dp),
      of_products_(buckets, reducer),
      squares_(squares_of(states, reducer, nullptr, buckets.options().device)),
      rest_(squares_of(states, reducer, &of_products_, buckets.options().device)),
      parameter_indices_(indices(parameter_count(buckets.blocks()), buckets.options().device)) {}

StepNumbers GlobalNorm::operator()(const at::Tensor& local_losses) const {
  StepNumbers numbers;
  // And the flags of what they are of.
  const at::Tensor squares = of_products_.current() ? rest_() : squares_();
  numbers.culprit = culprit(at::isfinite(local_losses).all());
  // [0]: what counts. [1]: copies whose owner is another tp rank. They must not count twice, but a
  // nan in one of them (a fault of this rank alone) has to stop the update everywhere, or the
  // copies would part. [2]: ranks with a culprit. [3..]: the losses.
  const at::Tensor words = at::cat(
      {squares, numbers.culprit.ne(-1).to(at::kDouble).view({1}), local_losses.to(at::kDouble)});
  const at::Tensor of_tp_ranks = gather_rows(sum_in_rank_order(gather_rows(words, dp_)), tp_);
  const at::Tensor sums = sum_in_rank_order(of_tp_ranks);

  numbers.norm = sums[0].sqrt().to(at::kFloat);
  // tp ranks of one dp rank have the same loss: row 0 serves all, so that they stay bitwise equal.
  numbers.losses = of_tp_ranks[0].slice(0, 3).to(at::kFloat);
  numbers.finite = at::isfinite(of_tp_ranks)
                       .all()
                       .logical_and_(at::isfinite(numbers.norm))
                       .logical_and_(of_tp_ranks.select(1, 2).sum().eq(0));
  return numbers;
}

// -1: every gradient here was finite, and the loss; -2: the loss alone was not.
at::Tensor GlobalNorm::culprit(const at::Tensor& losses_finite) const {
  const at::Tensor without = losses_finite.to(at::kLong).sub_(2);
  if (parameter_indices_.numel() == 0) return without;
  const int64_t none = parameter_indices_.numel();
  const at::Tensor first =
      at::where(at::isfinite(reducer_.nonfinite_flags()), none, parameter_indices_).min();
  return at::where(first < none, first, without);
}

}  // namespace tptrain::zero
