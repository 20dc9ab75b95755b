// Sum over tp, reduce_scatter over dp, accumulation. What is on its way over dp lands when its slot
// is needed again, or at the end of the step.
#include "zero/reduction.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

#include "zero/nonfinite.h"

namespace tptrain::zero {

Reduction::Reduction(const ParamBuckets& buckets, std::vector<BucketState>& states,
                     const StateLayout& layout, comm::Communicator& tp, comm::Communicator& dp,
                     Fault fault)
    : buckets_(buckets),
      states_(states),
      layout_(layout),
      tp_(tp),
      dp_(dp),
      fault_(fault),
      blocks_(buckets.blocks().size()),
      slots_(kSlots) {
  int64_t parameters = 0;
  for (const sharding::ParameterBlock& block : buckets.blocks()) {
    parameters += static_cast<int64_t>(block.parameters.size());
  }
  marks_ = at::zeros({parameters},
                     at::TensorOptions().dtype(at::kFloat).device(buckets.options().device));
  for (BucketState& state : states_) blocks_[state.bucket->block].states.push_back(&state);
  int64_t next = 0;
  for (int b = 0; b < static_cast<int>(blocks_.size()); ++b) {
    const sharding::ParameterBlock& declared = buckets.blocks()[b];
    const auto count = static_cast<int64_t>(declared.parameters.size());
    blocks_[b].marks = marks_.narrow(0, next, count);
    next += count;
    for (const sharding::Parameter* parameter : declared.parameters) {
      blocks_[b].gradients.push_back(parameter->main_grad.view({-1}));
    }
    blocks_[b].tp_sum = make_tp_sum(b);
    if (declared.also_uses >= 0) blocks_[declared.also_uses].cleared_by_user = true;
  }
}

Reduction::TpSum Reduction::make_tp_sum(int block) const {
  TpSum sum;
  if (tp_.size() == 1) return sum;
  const TpRegion& region = buckets_.tp_region(block);
  const bool partial = fault_ != Fault::drop_partial_sum_over_tp;
  const bool copies = fault_ != Fault::drop_copies_sum_over_tp;
  sum.whole = partial && copies ? region.whole : partial ? region.partial : region.staging;
  if (!copies || !region.staging.defined()) return sum;
  sum.staging = region.staging;
  for (const CopiedSlice& copied : copied_slices(buckets_.blocks()[block])) {
    const int64_t numel = copied.slice->spec.local_numel();
    const int64_t place = copied.staging_begin + copied.slice->copies.part * numel;
    sum.places.push_back(region.staging.narrow(0, place, numel));
    sum.gradients.push_back(
        copied.parameter->main_grad.view({-1}).narrow(0, copied.slice->offset, numel));
  }
  return sum;
}

void Reduction::clear() {
  for (Slot& slot : slots_) {
    for (const auto& work : slot.works) work->wait();  // it still writes main_grad
    slot = {};
  }
  for (BucketState& state : states_) {
    (layout_.accumulates ? state.grad_shard : state.bucket->main_grad).zero_();
  }
  marks_.zero_();
}

void Reduction::begin_block(int block) {
  if (!layout_.accumulates) return;
  if (!blocks_[block].cleared_by_user) zero_block(block);
  const int also_uses = buckets_.blocks()[block].also_uses;
  if (also_uses >= 0) zero_block(also_uses);
}

void Reduction::end_block(int block) {
  if (layout_.accumulates) start(block);
}

void Reduction::finish() {
  if (!layout_.accumulates) {
    for (int b = 0; b < static_cast<int>(blocks_.size()); ++b) start(b);
  }
  for (Slot& slot : slots_) land(slot);
  if (!layout_.holds_all || dp_.size() == 1) return;
  // Not an all-reduce, which may add in another order: stage 0 must see the very bits of the
  // others.
  std::vector<std::unique_ptr<comm::Work>> works;
  for (BucketState& state : states_) {
    works.push_back(dp_.start_all_gather(state.bucket->main_grad, state.grad_shard));
  }
  for (const auto& work : works) work->wait();
}

void Reduction::zero_block(int block) {
  land(slots_[slot_of(buckets_.blocks(), block)]);
  for (BucketState* state : blocks_[block].states) state->bucket->main_grad.zero_();
}

void Reduction::start(int index) {
  Block& block = blocks_[index];
  Slot& slot = slots_[slot_of(buckets_.blocks(), index)];
  land(slot);
  mark_nonfinite(block.gradients, block.marks);
  sum_over_tp(block);
  slot.block = index;
  if (dp_.size() == 1 || fault_ == Fault::skip_dp_reduction) return;
  for (BucketState* state : block.states) {
    // A sum, not a mean: the loss is already scaled by 1 / target tokens of the global batch.
    if (layout_.casts_for_reduction) {
      state->sent.copy_(state->bucket->main_grad);
      slot.works.push_back(
          dp_.start_reduce_scatter(state->sent_piece, state->sent, comm::ReduceOp::sum));
      continue;
    }
    slot.works.push_back(
        dp_.start_reduce_scatter(state->grad_piece, state->bucket->main_grad, comm::ReduceOp::sum));
  }
}

void Reduction::sum_over_tp(Block& block) {
  TpSum& sum = block.tp_sum;
  if (!sum.whole.defined()) return;
  if (sum.staging.defined()) {
    sum.staging.zero_();
    at::_foreach_copy_(sum.places, sum.gradients);
  }
  tp_.all_reduce(sum.whole, comm::ReduceOp::sum);
  if (sum.staging.defined()) at::_foreach_copy_(sum.gradients, sum.places);
}

void Reduction::land(Slot& slot) {
  if (slot.block < 0) return;
  const bool scattered = !slot.works.empty();
  for (const auto& work : slot.works) work->wait();
  for (BucketState* state : blocks_[slot.block].states) {
    const bool cast = scattered && layout_.casts_for_reduction;
    at::Tensor& result = cast ? state->sent_piece : state->grad_piece;
    if (scattered && fault_ == Fault::scale_dp_sum) result.mul_(1.0 / dp_.size());
    if (layout_.accumulates) {
      state->grad_shard.add_(result);
    } else if (cast) {
      state->grad_shard.copy_(result);
    }
  }
  slot.works.clear();
  slot.block = -1;
}

}  // namespace tptrain::zero
