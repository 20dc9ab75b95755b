// Allocation of what is held beside the buckets.
#include "zero/bucket_state.h"

#include <algorithm>
#include <iterator>
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

/// Masters and slots of the whole bucket, or of its shard.
bool holds_all(const Bucket& bucket, const StateLayout& layout) {
  return bucket.trains ? layout.holds_all : layout.parameter_buffers == Buffers::own;
}

void make_sent(std::vector<BucketState>& states, const ParamBuckets& buckets,
               const StateLayout& layout) {
  struct Slot {
    at::Tensor sharded, replicated;
  };
  const auto& blocks = buckets.blocks();
  const at::Device device = buckets.options().device;
  std::vector<Slot> slots;
  for (const SentAllocations& slot : sent_allocations(blocks, buckets.buckets(), layout))
    slots.push_back(
        {.sharded = slot.sharded.zeros(device), .replicated = slot.replicated.zeros(device)});
  if (slots.empty()) return;
  for (BucketState& state : states) {
    if (!state.bucket->trains || state.bucket->gradient_dtype == at::kBFloat16) continue;
    const Slot& slot = slots[static_cast<size_t>(slot_of(blocks, state.bucket->block))];
    const bool is_sharded = state.bucket->placement == parameters::Placement::tp_sharded;
    state.sent = (is_sharded ? slot.sharded : slot.replicated)
                     .narrow(0, state.bucket->gradient_begin, state.bucket->numel);
    state.sent_shard = state.sent.narrow(0, state.shard_begin, state.shard_numel());
  }
}

/// Memory of largest magnitudes, and the parameters' views of it.
void make_amax(BucketState& state, const BucketAllocations& allocated, at::Device device) {
  const std::vector<parameters::Parameter*> wanting = wanting_amax(*state.bucket);
  if (allocated.held_amax) state.held_amax = allocated.held_amax->zeros(device);
  if (allocated.amax)
    state.amax = allocated.amax->zeros(device);
  else if (state.held_end - state.held_begin == state.bucket->numel)
    state.amax = state.held_amax;
  if (allocated.gathered_amax) state.gathered_amax = allocated.gathered_amax->zeros(device);
  for (size_t i = 0; i < wanting.size(); ++i)
    wanting[i]->amax =
        state.amax.defined() ? state.amax.narrow(0, static_cast<int64_t>(i), 1) : at::Tensor();
}

}  // namespace

bool is_gathered_as_fp8(const Bucket& bucket, const StateLayout& layout, int dp_size) {
  return bucket.fp8 && layout.parameter_buffers == Buffers::shared && dp_size > 1;
}

std::vector<parameters::Parameter*> wanting_amax(const Bucket& bucket) {
  std::vector<parameters::Parameter*> wanting;
  std::ranges::copy_if(bucket.parameters, std::back_inserter(wanting),
                       &parameters::Parameter::wants_amax);
  return wanting;
}

at::Tensor held_amax_of(const BucketState& state, const parameters::Parameter& parameter) {
  if (!state.held_amax.defined() || !parameter.wants_amax) return at::Tensor();
  const std::vector<parameters::Parameter*> wanting = wanting_amax(*state.bucket);
  return state.held_amax.narrow(0, std::ranges::find(wanting, &parameter) - wanting.begin(), 1);
}

BucketAllocations bucket_allocations(const Bucket& bucket, const StateLayout& layout, int dp_size) {
  const int64_t shard = bucket.numel / dp_size;
  const int64_t held = holds_all(bucket, layout) ? bucket.numel : shard;
  BucketAllocations result;
  for (const StateTensor& tensor : state_tensors(bucket.trains, bucket.unit, layout)) {
    Allocation allocation{.shape = {held}, .dtype = tensor.dtype};
    if (tensor.kind != sharding::kMaster) {
      result.slots.push_back(std::move(allocation));
    } else if (bucket.trains ? layout.own_masters : !holds_all(bucket, layout)) {
      result.master = std::move(allocation);
    }
  }
  if (bucket.trains && layout.accumulates)
    result.grad_shard = Allocation{.shape = {shard}, .dtype = at::kFloat};
  const auto magnitudes = static_cast<int64_t>(wanting_amax(bucket).size());
  if (!layout.keeps_amax || magnitudes == 0) return result;
  result.held_amax = Allocation{.shape = {magnitudes}, .dtype = at::kInt};
  if (held == bucket.numel || is_gathered_as_fp8(bucket, layout, dp_size)) return result;
  result.amax = result.held_amax;
  result.gathered_amax = Allocation{.shape = {dp_size, magnitudes}, .dtype = at::kInt};
  return result;
}

std::vector<SentAllocations> sent_allocations(const std::vector<parameters::ParameterBlock>& blocks,
                                              const std::vector<Bucket>& buckets,
                                              const StateLayout& layout) {
  std::vector<SentAllocations> slots;
  if (!layout.casts_for_reduction) return slots;
  for (const GradientBuffer& size : gradient_buffers(blocks, buckets, Buffers::shared))
    slots.push_back({.sharded = {.shape = {size.sharded}, .dtype = at::kBFloat16},
                     .replicated = {.shape = {size.replicated}, .dtype = at::kBFloat16}});
  return slots;
}

std::vector<BucketState> make_states(ParamBuckets& buckets, const StateLayout& layout) {
  check_units(buckets.buckets(), *layout.rule);
  const at::Device device = buckets.options().device;
  std::vector<BucketState> states;
  for (Bucket& bucket : buckets.buckets()) {
    const BucketAllocations allocated = bucket_allocations(bucket, layout, buckets.dp().size);
    BucketState state;
    state.bucket = &bucket;
    std::tie(state.shard_begin, state.shard_end) = buckets.shard_range(bucket, buckets.dp().rank);
    state.held_begin = holds_all(bucket, layout) ? 0 : state.shard_begin;
    state.held_end = holds_all(bucket, layout) ? bucket.numel : state.shard_end;
    const int64_t held = state.held_end - state.held_begin;
    state.data_shard = bucket.data.narrow(0, state.shard_begin, state.shard_numel());
    state.master = allocated.master ? allocated.master->zeros(device)
                                    : bucket.data.narrow(0, state.held_begin, held);
    if (bucket.trains) {
      for (const Allocation& slot : allocated.slots) state.slots.push_back(slot.zeros(device));
      state.main_grad_shard = bucket.main_grad.narrow(0, state.shard_begin, state.shard_numel());
      state.grad_shard =
          allocated.grad_shard ? allocated.grad_shard->zeros(device) : state.main_grad_shard;
      state.gradient = held == state.shard_numel() ? state.grad_shard : bucket.main_grad;
    }
    make_amax(state, allocated, device);
    states.push_back(std::move(state));
  }
  make_sent(states, buckets, layout);
  return states;
}

}  // namespace tptrain::zero
