// Allocation of what is held beside the buckets.
#include "zero/bucket_state.h"

#include <ATen/Functions.h>

#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "optim/update_rule.h"
#include "zero/layout.h"

namespace tptrain::zero {
namespace {

/// Whoever lays buckets out names the rule that they are for.
void check_units(const std::vector<Bucket>& buckets, const optim::UpdateRule& rule) {
  for (const Bucket& bucket : buckets) {
    for (const parameters::Parameter* parameter : bucket.parameters) {
      if (!bucket.trains || rule.unit(*parameter) == bucket.unit) continue;
      throw InternalError(
          problem(cat("the bucket '", bucket.name, "' under the rule ", rule.name()))
              .must("be laid out for it (ParamBuckets::Options::rule)"));
    }
  }
}

void make_sent(std::vector<BucketState>& states, const ParamBuckets& buckets,
               const at::TensorOptions& on_device) {
  const auto& blocks = buckets.blocks();
  std::vector<std::pair<at::Tensor, at::Tensor>> slots;  // sharded, replicated
  const auto bf16 = on_device.dtype(at::kBFloat16);
  for (const GradientBuffer& size : gradient_buffers(blocks, buckets.buckets(), Buffers::shared))
    slots.emplace_back(at::zeros({size.sharded}, bf16), at::zeros({size.replicated}, bf16));
  for (BucketState& state : states) {
    if (!state.bucket->trains || state.bucket->gradient_dtype == at::kBFloat16) continue;
    const auto& [sharded, replicated] = slots[slot_of(blocks, state.bucket->block)];
    const bool is_sharded = state.bucket->placement == parameters::Placement::tp_sharded;
    state.sent = (is_sharded ? sharded : replicated)
                     .narrow(0, state.bucket->gradient_begin, state.bucket->numel);
    state.sent_piece = state.sent.narrow(0, state.shard_begin, state.shard_numel());
  }
}

}  // namespace

std::vector<BucketState> make_states(ParamBuckets& buckets, const StateLayout& layout) {
  check_units(buckets.buckets(), *layout.rule);
  const auto on_device = at::TensorOptions().device(buckets.options().device);
  std::vector<BucketState> states;
  for (Bucket& bucket : buckets.buckets()) {
    BucketState state;
    state.bucket = &bucket;
    std::tie(state.shard_begin, state.shard_end) = buckets.shard_range(bucket, buckets.dp().rank);
    const bool holds_all =
        bucket.trains ? layout.holds_all : layout.parameter_buffers == Buffers::own;
    state.held_begin = holds_all ? 0 : state.shard_begin;
    state.held_end = holds_all ? bucket.numel : state.shard_end;
    const int64_t held = state.held_end - state.held_begin;
    state.data_shard = bucket.data.narrow(0, state.shard_begin, state.shard_numel());
    if (!bucket.trains) {
      state.master = holds_all ? bucket.data : at::zeros({held}, bucket.data.options());
      states.push_back(std::move(state));
      continue;
    }
    state.master = layout.own_masters ? at::zeros({held}, on_device.dtype(layout.master_dtype))
                                      : bucket.data.narrow(0, state.held_begin, held);
    for (size_t s = 0; s < layout.rule->slots(bucket.unit).size(); ++s)
      state.slots.push_back(at::zeros({held}, on_device.dtype(layout.slots_dtype)));
    state.grad_piece = bucket.main_grad.narrow(0, state.shard_begin, state.shard_numel());
    state.grad_shard = layout.accumulates
                           ? at::zeros({state.shard_numel()}, on_device.dtype(at::kFloat))
                           : state.grad_piece;
    state.gradient = held == state.shard_numel() ? state.grad_shard : bucket.main_grad;
    states.push_back(std::move(state));
  }
  if (layout.casts_for_reduction) make_sent(states, buckets, on_device);
  return states;
}

}  // namespace tptrain::zero
