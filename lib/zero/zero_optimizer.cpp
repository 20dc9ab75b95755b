// The step: gradients summed over dp, one global norm, the update, parameters everywhere.
#include "zero/zero_optimizer.h"

#include <ATen/Functions.h>

#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "zero/gradient_norm.h"
#include "zero/zero_impl.h"

namespace tptrain::zero {
namespace {

using optim::AdamWRange;
using sharding::Parameter;

// One more contiguous range, or the last one made longer.
struct FlatRange {
  int64_t begin = 0;
  int64_t end = 0;
};
void append(std::vector<FlatRange>& ranges, int64_t begin, int64_t end) {
  if (!ranges.empty() && ranges.back().end == begin) {
    ranges.back().end = end;
    return;
  }
  ranges.push_back({begin, end});
}

}  // namespace

ZeroOptimizer::Impl::Impl(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
                          const Options& options)
    : buckets(buckets),
      tp(tp),
      dp(dp),
      options(options),
      device(buckets.buckets().empty() ? at::Device(at::kCPU)
                                       : buckets.buckets().front().data.device()) {
  if (options.zero_stage != 0 && options.zero_stage != 1) {
    throw InternalError(problem(cat("ZeRO stage ", options.zero_stage)).must("be 0 or 1"));
  }
  if (options.optimizer.betas.size() != 2) {
    throw InternalError(
        problem(cat(options.optimizer.betas.size(), " betas of AdamW")).must("be two"));
  }
  const DpPosition position = buckets.dp();
  if (position.rank != dp.rank() || position.size != dp.size()) {
    throw InternalError(
        problem(cat("buckets laid out for dp rank ", position.rank, " of ", position.size,
                    ", communicator of dp rank ", dp.rank(), " of ", dp.size()))
            .must("be the same"));
  }
  for (Bucket& bucket : buckets.buckets()) {
    BucketState state;
    state.bucket = &bucket;
    std::tie(state.shard_begin, state.shard_end) = buckets.shard_range(bucket, dp.rank());
    const bool whole = options.zero_stage == 0;
    state.held_begin = whole ? 0 : state.shard_begin;
    state.held_end = whole ? bucket.numel : state.shard_end;
    state.exp_avg = at::zeros({state.held_end - state.held_begin}, bucket.data.options());
    state.exp_avg_sq = at::zeros_like(state.exp_avg);
    const int64_t shard_numel = state.shard_end - state.shard_begin;
    state.data_shard = bucket.data.narrow(0, state.shard_begin, shard_numel);
    state.grad_shard = bucket.main_grad.narrow(0, state.shard_begin, shard_numel);
    make_ranges(state);
    make_norm_views(state);
    states.push_back(std::move(state));
  }
  const auto scalar = at::TensorOptions().device(device);
  updates = at::zeros({}, scalar.dtype(at::kFloat));
  gradient_scale = at::ones({}, scalar.dtype(at::kFloat));
  finite = at::ones({}, scalar.dtype(at::kBool));
}

// Neighbours that decay alike become one range: without decay a bucket is a single one, and few
// ranges are few launches. Padding is in none of them.
void ZeroOptimizer::Impl::make_ranges(BucketState& state) {
  std::vector<FlatRange> decaying, plain;
  for (const BucketPiece& piece : pieces_of(*state.bucket, state.held_begin, state.held_end)) {
    const bool decays = piece.parameter->decays() && options.optimizer.weight_decay != 0;
    append(decays ? decaying : plain, piece.bucket_begin, piece.bucket_begin + piece.count);
  }
  const auto add = [&](const FlatRange& range, double weight_decay) {
    const int64_t numel = range.end - range.begin;
    const int64_t held = range.begin - state.held_begin;
    ranges.push_back({.master = state.bucket->data.narrow(0, range.begin, numel),
                      .exp_avg = state.exp_avg.narrow(0, held, numel),
                      .exp_avg_sq = state.exp_avg_sq.narrow(0, held, numel),
                      .gradient = state.bucket->main_grad.narrow(0, range.begin, numel),
                      .options = {.beta1 = options.optimizer.betas[0],
                                  .beta2 = options.optimizer.betas[1],
                                  .eps = options.optimizer.eps,
                                  .weight_decay = weight_decay}});
  };
  for (const FlatRange& range : decaying) add(range, options.optimizer.weight_decay);
  for (const FlatRange& range : plain) add(range, 0.0);
}

// The shard range in every stage, so that stages agree bitwise. Each element counts once over dp
// because shards are disjoint, once over tp because exactly one tp rank owns it.
void ZeroOptimizer::Impl::make_norm_views(BucketState& state) {
  std::vector<FlatRange> owned, other;
  for (const BucketPiece& piece : pieces_of(*state.bucket, state.shard_begin, state.shard_end)) {
    append(piece.slice->owned ? owned : other, piece.bucket_begin,
           piece.bucket_begin + piece.count);
  }
  const at::Tensor& flat = state.bucket->main_grad;
  for (const FlatRange& r : owned)
    owned_gradients.push_back(flat.narrow(0, r.begin, r.end - r.begin));
  for (const FlatRange& r : other)
    other_gradients.push_back(flat.narrow(0, r.begin, r.end - r.begin));
}

void ZeroOptimizer::Impl::require(Phase expected, const char* call, const char* remedy) const {
  if (phase == expected) return;
  throw InternalError(problem(cat(call, " of the optimizer was called out of order"))
                          .must("follow begin_step, finish_reduction, clip, update")
                          .remedy(remedy));
}

void ZeroOptimizer::Impl::gather_data() {
  if (dp.size() == 1) return;
  for (BucketState& state : states) dp.all_gather(state.bucket->data, state.data_shard);
}

ZeroOptimizer::ZeroOptimizer(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
                             const Options& options)
    : impl_(std::make_unique<Impl>(buckets, tp, dp, options)) {}
ZeroOptimizer::~ZeroOptimizer() = default;

void ZeroOptimizer::begin_step() {
  for (BucketState& state : impl_->states) state.bucket->main_grad.zero_();
  impl_->phase = Phase::accumulating;
}

void ZeroOptimizer::finish_reduction() {
  impl_->require(Phase::accumulating, "finish_reduction()",
                 "Call it once a step: a second sum over dp would count every gradient dp times.");
  impl_->phase = Phase::reduced;
  comm::Communicator& dp = impl_->dp;
  const Fault fault = impl_->options.fault;
  if (dp.size() == 1 || fault == Fault::skip_dp_reduction) return;
  for (BucketState& state : impl_->states) {
    // A sum, not a mean: the loss is already scaled by 1 / target tokens of the global batch.
    dp.reduce_scatter(state.grad_shard, state.bucket->main_grad, comm::ReduceOp::sum);
    if (fault == Fault::scale_dp_sum) state.grad_shard.mul_(1.0 / dp.size());
    // Not an all-reduce, which may add in another order: stage 0 must see the very bits of stage 1.
    if (impl_->options.zero_stage == 0) dp.all_gather(state.bucket->main_grad, state.grad_shard);
  }
}

GradientNorm ZeroOptimizer::clip(double max_norm) {
  impl_->require(Phase::reduced, "clip()", "Call finish_reduction() before it.");
  impl_->phase = Phase::clipped;
  const Fault fault = impl_->options.fault;
  // [0]: what counts. [1]: copies whose owner is another tp rank. They must not count twice, but a
  // nan in one of them (a fault of this rank alone) has to stop the update everywhere, or the
  // copies would part.
  at::Tensor sums = at::cat({sum_of_squares(impl_->owned_gradients, impl_->device),
                             sum_of_squares(impl_->other_gradients, impl_->device)});
  sums = sum_in_rank_order(sums, impl_->dp);
  if (fault != Fault::drop_norm_sum_over_tp) sums = sum_in_rank_order(sums, impl_->tp);

  at::Tensor square = sums[0];
  if (fault == Fault::double_count_replicated_in_norm) square = square + sums[1];
  GradientNorm norm;
  norm.value = square.sqrt().to(at::kFloat);
  norm.finite = at::isfinite(norm.value).logical_and(at::isfinite(sums[1]));

  impl_->finite.copy_(norm.finite);
  if (max_norm > 0) {
    // torch.nn.utils.clip_grad_norm_'s formula, 1e-6 included: users compare with it.
    impl_->gradient_scale.copy_((norm.value + 1e-6).reciprocal_().mul_(max_norm).clamp_max_(1.0));
  } else {
    impl_->gradient_scale.fill_(1.0);
  }
  return norm;
}

void ZeroOptimizer::update(double learning_rate) {
  impl_->require(Phase::clipped, "update()",
                 "Call clip() before it, with max_norm 0 for no limit.");
  impl_->phase = Phase::updated;
  optim::adamw_update(impl_->ranges, impl_->updates, impl_->gradient_scale, impl_->finite,
                      learning_rate);
  if (impl_->options.zero_stage == 1) impl_->gather_data();
}

// Stages 0 and 1 hold every parameter and sum gradients once a step, so a block's borders mean
// nothing to them. Stages 2 and 3 reduce a block's gradient in after_backward (and free it), and
// stage 3 gathers its parameters before and frees them after each way: the calls come in a fixed
// order on every rank, which is what collectives need.
void ZeroOptimizer::before_forward(int) {}
void ZeroOptimizer::after_forward(int) {}
void ZeroOptimizer::before_backward(int) {}
void ZeroOptimizer::after_backward(int) {}

}  // namespace tptrain::zero
