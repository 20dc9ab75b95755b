// Sum over tp, reduce_scatter over dp, accumulation. What is on its way over dp lands when its
// memory is needed again, or at the end of the step.
#include "zero/reduction.h"

#include <ATen/Functions.h>

#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::zero {
namespace {

enum class Tables { looked_up, multiplied };

// Whether a step's first writer of the gradient is linear_weight_gradient. A look-up adds rows, and
// norms and biases add sums: theirs must begin at zero.
bool gemm_writes_first(const sharding::Parameter& parameter, Tables tables) {
  if (parameter.shape.size() != 2) return false;
  switch (parameter.role) {
    case sharding::Role::column_parallel:
    case sharding::Role::row_parallel:
      return true;
    case sharding::Role::vocab_parallel:
      return tables == Tables::multiplied;
    case sharding::Role::replicated:
      return false;
  }
  return false;
}

void zero_all(const std::vector<at::Tensor>& tensors) {
  if (!tensors.empty()) at::_foreach_zero_(tensors);
}

}  // namespace

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
      homes_(home_count(buckets.blocks(), layout.gradient_homes)) {
  sent_by_.fill(-1);
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
    std::vector<at::Tensor> gradients;
    for (const sharding::Parameter* parameter : declared.parameters) {
      gradients.push_back(parameter->main_grad.view({-1}));
    }
    blocks_[b].marks = NonfiniteMarks(std::move(gradients), marks_.narrow(0, next, count));
    next += count;
    blocks_[b].tp_sum = make_tp_sum(b);
    sort_by_writer(b);
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

void Reduction::sort_by_writer(int index) {
  const auto& declared = buckets_.blocks();
  const int head = static_cast<int>(declared.size()) - 1;
  // The head multiplies with its table, its own or the tied one, before the look-up's rows are
  // added.
  const bool multiplied = index == head || declared[head].also_uses == index;
  Block& block = blocks_[index];
  for (const BucketState* state : block.states) {
    const Bucket& bucket = *state->bucket;
    int64_t next = 0;
    const auto zero_until = [&](int64_t end) {
      if (next < end) block.zeroed.push_back(bucket.main_grad.narrow(0, next, end - next));
    };
    for (size_t i = 0; i < bucket.parameters.size(); ++i) {
      sharding::Parameter* parameter = bucket.parameters[i];
      if (!gemm_writes_first(*parameter, multiplied ? Tables::multiplied : Tables::looked_up))
        continue;
      block.overwritable.push_back(parameter);
      zero_until(bucket.offsets[i]);
      next = bucket.offsets[i] + parameter->numel();
    }
    zero_until(bucket.numel);
  }
}

void Reduction::clear() {
  for (Home& home : homes_) {
    for (const auto& work : home.works) work->wait();  // it still writes main_grad
    home = {};
  }
  for (const auto& work : gathers_) work->wait();
  gathers_.clear();
  sent_by_.fill(-1);
  place_ = MicroBatchPlace::before_last;
  memory_is_clear_ = false;
  for (Block& block : blocks_) {
    block.started = false;
    block.shard_is_void = true;
    block.gathers_started = false;
  }
}

void Reduction::clear_memory() {
  if (std::exchange(memory_is_clear_, true)) return;
  std::vector<at::Tensor> zeroed = {marks_};
  for (Block& block : blocks_) {
    if (layout_.accumulates) break;
    for (sharding::Parameter* parameter : block.overwritable) parameter->main_grad_is_void = true;
    zeroed.insert(zeroed.end(), block.zeroed.begin(), block.zeroed.end());
  }
  zero_all(zeroed);
}

void Reduction::begin_block(int index) {
  clear_memory();
  Block& block = blocks_[index];
  if (block.gathers_started || (block.started && !layout_.accumulates)) {
    throw InternalError(problem(cat("backward of block '", buckets_.blocks()[index].name,
                                    "' after its gradient was reduced"))
                            .must("come before it")
                            .remedy("MicroBatchPlace::last is for a step's last micro-batch."));
  }
  if (layout_.accumulates) {
    if (!block.cleared_by_user) make_zero(index);
    const int also_uses = buckets_.blocks()[index].also_uses;
    if (also_uses >= 0) make_zero(also_uses);
  }
  if (block.cleared_by_user) settle(block);  // its own backward only adds
}

void Reduction::end_block(int index) {
  const bool last = place_ == MicroBatchPlace::last;
  // Its reduction began a block's backward ago: the current stream hardly waits for it.
  const int earlier = index + 2;
  if (last && earlier < static_cast<int>(blocks_.size())) gather_gradient(earlier);
  if (layout_.accumulates || last) start(index);
}

void Reduction::finish() {
  clear_memory();
  const int blocks = static_cast<int>(blocks_.size());
  for (int b = 0; b < blocks && !layout_.accumulates; ++b) {
    if (!blocks_[b].started) start(b);
  }
  for (int b = blocks - 1; b >= 0; --b) {  // in the order of backward
    complete(b);
    gather_gradient(b);
  }
  for (const auto& work : gathers_) work->wait();
  gathers_.clear();
}

// In its home: whatever was there has landed.
void Reduction::make_zero(int index) {
  land(home(index));
  Block& block = blocks_[index];
  for (sharding::Parameter* parameter : block.overwritable) parameter->main_grad_is_void = true;
  zero_all(block.zeroed);
}

// A gradient that nobody has written is zero.
void Reduction::settle(Block& block) {
  for (sharding::Parameter* parameter : block.overwritable) {
    if (std::exchange(parameter->main_grad_is_void, false)) parameter->main_grad.zero_();
  }
}

Reduction::Home& Reduction::home(int block) {
  return homes_[home_of(buckets_.blocks(), block, layout_.gradient_homes)];
}

void Reduction::start(int index) {
  Block& block = blocks_[index];
  Home& own = home(index);
  land(own);
  if (layout_.casts_for_reduction) {
    int& user = sent_by_[slot_of(buckets_.blocks(), index)];
    if (user >= 0) land(home(user));
    user = index;
  }
  settle(block);
  block.marks.update();
  sum_over_tp(block);
  own.block = index;
  block.started = true;
  if (dp_.size() == 1 || fault_ == Fault::skip_dp_reduction) return;
  for (BucketState* state : block.states) {
    // A sum, not a mean: the loss is already scaled by 1 / target tokens of the global batch.
    if (layout_.casts_for_reduction) state->sent.copy_(state->bucket->main_grad);
    const at::Tensor& sent = layout_.casts_for_reduction ? state->sent : state->bucket->main_grad;
    own.works.push_back(
        dp_.start_reduce_scatter(scattered_to(block, *state), sent, comm::ReduceOp::sum));
  }
}

// The step's first sum goes straight where the others are added.
at::Tensor& Reduction::scattered_to(const Block& block, BucketState& state) const {
  if (layout_.casts_for_reduction) return state.sent_piece;
  return layout_.accumulates && block.shard_is_void ? state.grad_shard : state.grad_piece;
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

void Reduction::land(Home& home) {
  if (home.block < 0) return;
  Block& block = blocks_[home.block];
  const bool scattered = !home.works.empty();
  for (const auto& work : home.works) work->wait();
  for (BucketState* state : block.states) {
    at::Tensor& result = scattered ? scattered_to(block, *state) : state->grad_piece;
    if (scattered && fault_ == Fault::scale_dp_sum) result.mul_(1.0 / dp_.size());
    if (layout_.accumulates && !block.shard_is_void) {
      state->grad_shard.add_(result);
    } else if (!result.is_same(state->grad_shard)) {
      state->grad_shard.copy_(result);
    }
  }
  block.shard_is_void = false;
  home.works.clear();
  home.block = -1;
}

// The block's shard is the step's whole gradient.
void Reduction::complete(int index) {
  land(home(index));
  Block& block = blocks_[index];
  if (!layout_.accumulates || !std::exchange(block.shard_is_void, false)) return;
  for (BucketState* state : block.states) state->grad_shard.zero_();
}

// Stage 0. Not an all-reduce, which may add in another order: it must see the very bits of the
// others.
void Reduction::gather_gradient(int index) {
  Block& block = blocks_[index];
  if (!layout_.holds_all || dp_.size() == 1) return;
  if (std::exchange(block.gathers_started, true)) return;
  complete(index);
  for (BucketState* state : block.states) {
    gathers_.push_back(dp_.start_all_gather(state->bucket->main_grad, state->grad_shard));
  }
}

}  // namespace tptrain::zero
