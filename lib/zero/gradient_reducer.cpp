// Sum over tp, reduce_scatter over dp, accumulation. What is in flight over dp is accumulated when
// its memory is needed again, or at the end of the step.
#include "zero/gradient_reducer.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::zero {
namespace {

std::optional<WrittenRows> written_rows_of(const ParamBuckets& buckets,
                                           std::vector<BucketState>& states,
                                           const StateLayout& layout, int ranks) {
  if (layout.accumulates) return std::nullopt;
  const bool is_tied = std::ranges::any_of(
      buckets.blocks(),
      [](const parameters::ParameterBlock& block) { return block.also_uses == 0; });
  for (BucketState& state : states) {
    if (state.bucket->block != 0) continue;
    if (std::optional<WrittenRows> found = WrittenRows::of(state, is_tied, ranks)) return found;
  }
  return std::nullopt;
}

void zero_all(const std::vector<at::Tensor>& tensors) {
  if (!tensors.empty()) at::_foreach_zero_(tensors);
}

}  // namespace

GradientReducer::GradientReducer(const ParamBuckets& buckets, std::vector<BucketState>& states,
                                 const StateLayout& layout, comm::Communicator& tp,
                                 comm::Communicator& dp, TableRows* rows)
    : buckets_(buckets),
      layout_(layout),
      tp_(tp),
      dp_(dp),
      written_rows_(written_rows_of(buckets, states, layout, tp.size() * dp.size())),
      first_writes_(buckets, written_rows_ ? &written_rows_->table() : nullptr),
      nonfinite_flags_(step_tensors(parameter_count(buckets.blocks()))
                           .nonfinite_flags.zeros(buckets.options().device)),
      blocks_(buckets.blocks().size()),
      buffers_(buffer_count(buckets.blocks(), layout.gradient_buffers)) {
  sent_by_.fill(-1);
  for (const parameters::ParameterBlock& block : buckets.blocks()) {
    if (block.also_uses >= 0) blocks_[block.also_uses].zeroed_by_user = true;
  }
  for (BucketState& state : states) {
    if (state.bucket->trains) blocks_[state.bucket->block].buckets.push_back({.state = &state});
  }
  for (int b = 0; b < static_cast<int>(blocks_.size()); ++b)
    blocks_[b].tp_sum.emplace(buckets, b, tp);
  if (rows != nullptr) find_table(*rows);
  make_nonfinite_flags();
}

void GradientReducer::find_table(TableRows& rows) {
  for (BucketReduction& bucket : blocks_.front().buckets) {
    if (bucket.state->bucket->parameters[0] != &rows.table()) continue;
    table_.emplace(Table{.rows = rows,
                         .bucket = &bucket,
                         .nonfinite = {},
                         .flag = {},
                         .is_tied = blocks_.front().zeroed_by_user});
  }
}

// A gradient is searched where it is still this rank's own: before it is reduced, or, where nothing
// is added to it, by the norm.
void GradientReducer::make_nonfinite_flags() {
  int64_t next = 0;
  for (int b = 0; b < static_cast<int>(blocks_.size()); ++b) {
    std::vector<at::Tensor> gradients;
    for (const parameters::Parameter* parameter : buckets_.blocks()[b].parameters) {
      const int64_t index = next + static_cast<int64_t>(gradients.size());
      const bool is_searched = parameter->trains && changes_before_norm(*parameter);
      gradients.push_back(is_searched ? parameter->main_grad.view({-1}) : at::Tensor());
      if (parameter->trains && !is_searched)
        flags_for_norm_.emplace(parameter, nonfinite_flags_.narrow(0, index, 1));
    }
    if (b == 0 && table_) {  // its first
      table_->flag = nonfinite_flags_.narrow(0, 0, 1);
      table_->nonfinite = NonfiniteFlags({gradients[0]}, table_->flag);
      gradients.erase(gradients.begin());
      next = 1;
    }
    const auto count = static_cast<int64_t>(gradients.size());
    blocks_[b].nonfinite =
        NonfiniteFlags(std::move(gradients), nonfinite_flags_.narrow(0, next, count));
    next += count;
  }
}

// By sums over ranks, or with other micro-batches': whose inf or nan it is would not be found.
bool GradientReducer::changes_before_norm(const parameters::Parameter& parameter) const {
  if (dp_.size() > 1 || layout_.accumulates) return true;
  if (tp_.size() == 1) return false;
  return parameter.tp_gradient == parameters::TpGradient::partial ||
         std::ranges::any_of(parameter.slices, [](const parameters::NamedSlice& slice) {
           return slice.copies.parts > 0;
         });
}

at::Tensor GradientReducer::flag_for_norm(const parameters::Parameter& parameter) const {
  const auto found = flags_for_norm_.find(&parameter);
  return found == flags_for_norm_.end() ? at::Tensor() : found->second;
}

void GradientReducer::begin_step() {
  for (Buffer& buffer : buffers_) {
    for (const auto& work : buffer.in_flight) work->wait();  // it still writes main_grad
    buffer = {};
  }
  for (const auto& work : gathers_) work->wait();
  gathers_.clear();
  sent_by_.fill(-1);
  place_ = MicroBatchPlace::before_last;
  step_is_zeroed_ = false;
  finished_ = false;
  announced_ = false;
  for (Block& block : blocks_) {
    block.started = false;
    block.gathers_started = false;
    for (BucketReduction& bucket : block.buckets) bucket.shard_is_empty = true;
  }
  if (!table_) return;
  table_->sends_rows = false;
  table_->is_written = false;
}

void GradientReducer::begin_micro_batch(MicroBatchPlace place, Lookup lookup) {
  place_ = place;
  announced_ = lookup == Lookup::announced;
  if (!table_) return;
  const bool reduces = layout_.accumulates || place == MicroBatchPlace::last;
  table_->sends_rows = reduces && table_->rows.active();
  table_->rows_sent = false;
}

void GradientReducer::before_backward(int index) {
  zero_step();
  if (written_rows_ && index == 0 && !announced_) written_rows_->add_all();
  Block& block = blocks_[index];
  if (block.gathers_started || (block.started && !layout_.accumulates)) {
    throw InternalError(problem(cat("backward of block '", buckets_.blocks()[index].name,
                                    "' after its gradient was reduced"))
                            .must("come before it")
                            .remedy("MicroBatchPlace::last is for a step's last micro-batch."));
  }
  if (layout_.accumulates) {
    if (!block.zeroed_by_user) zero_block(index);
    const int also_uses = buckets_.blocks()[index].also_uses;
    if (also_uses >= 0) zero_block(also_uses);
  }
  if (block.zeroed_by_user) zero_unwritten(block);  // its own backward only adds
}

void GradientReducer::after_backward(int index) {
  const bool last = place_ == MicroBatchPlace::last;
  // Its reduction began a block's backward ago: the current stream hardly waits for it.
  const int earlier = index + 2;
  if (last && earlier < static_cast<int>(blocks_.size())) start_all_gather(earlier);
  if (layout_.accumulates || last) reduce_block(index);
  if (index + 1 == static_cast<int>(blocks_.size()) && sends_rows()) reduce_table();
}

void GradientReducer::add_table_rows(parameters::Parameter& table, at::Tensor rows,
                                     const at::Tensor& ids) {
  if (!sends_rows()) {
    if (table_) table_->is_written = true;
    tensor_parallel::add_table_rows(table, std::move(rows), ids);
    if (written_rows_) written_rows_->add(ids);
    return;
  }
  table_->rows.add(rows, [&] {
    const at::Tensor bad = at::isfinite(rows).all().logical_not_();
    table_->flag.masked_fill_(bad, std::numeric_limits<float>::infinity());
    wait_and_accumulate(buffer(0));  // what reduce_table() sent
    BucketReduction& bucket = *table_->bucket;
    if (std::exchange(bucket.shard_is_empty, false)) bucket.state->grad_shard.zero_();
  });
  table_->rows_sent = true;
}

void GradientReducer::finish() {
  zero_step();
  const int blocks = static_cast<int>(blocks_.size());
  for (int b = 0; b < blocks && !layout_.accumulates; ++b) {
    if (!blocks_[b].started) reduce_block(b);
  }
  for (int b = blocks - 1; b >= 0; --b) {  // in the order of backward
    finish_shards(b);
    start_all_gather(b);
  }
  for (const auto& work : gathers_) work->wait();
  gathers_.clear();
  finished_ = true;
}

// Where every micro-batch is reduced, zero_block() does the rest.
void GradientReducer::zero_step() {
  if (std::exchange(step_is_zeroed_, true)) return;
  std::vector<at::Tensor> zeroed = {nonfinite_flags_};
  for (Block& block : blocks_) {
    if (layout_.accumulates) break;
    for (const BucketReduction& bucket : block.buckets) expect_first_writes(bucket, zeroed);
  }
  zero_all(zeroed);
  if (written_rows_) written_rows_->clear();
}

// Of a table whose gradient goes as rows only what the head adds is ever read.
void GradientReducer::expect_first_writes(const BucketReduction& bucket,
                                          std::vector<at::Tensor>& zeroed) {
  if (goes_as_rows(bucket) && !table_->is_tied) return;
  first_writes_.expect(*bucket.state->bucket, zeroed);
}

// In its buffer: whatever was there has been accumulated.
void GradientReducer::zero_block(int index) {
  wait_and_accumulate(buffer(index));
  std::vector<at::Tensor> zeroed;
  for (const BucketReduction& bucket : blocks_[index].buckets) expect_first_writes(bucket, zeroed);
  zero_all(zeroed);
}

void GradientReducer::zero_unwritten(const Block& block) {
  for (const BucketReduction& bucket : block.buckets)
    first_writes_.zero_unwritten(*bucket.state->bucket);
}

GradientReducer::Buffer& GradientReducer::buffer(int block) {
  return buffers_[buffer_of(buckets_.blocks(), block, layout_.gradient_buffers)];
}

void GradientReducer::reduce_block(int index) {
  Block& block = blocks_[index];
  if (index == 0 && sends_rows() && !table_->rows_sent) {
    throw InternalError(problem("a micro-batch's backward without the rows of its look-up")
                            .must("give them to add_table_rows()"));
  }
  zero_unwritten(block);
  block.nonfinite.update();
  block.tp_sum->run();
  std::vector<BucketReduction*> reduced;
  for (BucketReduction& bucket : block.buckets) {
    if (goes_as_rows(bucket)) continue;
    if (table_ && &bucket == table_->bucket) {
      table_->nonfinite.update();
      table_->is_written = false;
    }
    reduced.push_back(&bucket);
  }
  start_reduce_scatter(index, std::move(reduced));
  block.started = true;
}

// What is in main_grad when the head's backward is complete; where nothing is, there is no share.
void GradientReducer::reduce_table() {
  if (table_->is_tied || table_->is_written) {
    table_->nonfinite.update();
    start_reduce_scatter(0, {table_->bucket});
  }
  table_->rows.gather_ids();
}

void GradientReducer::start_reduce_scatter(int index, std::vector<BucketReduction*> buckets) {
  Buffer& own = buffer(index);
  wait_and_accumulate(own);
  const auto casts = [](const BucketReduction* bucket) { return bucket->state->sent.defined(); };
  if (std::ranges::any_of(buckets, casts)) {
    int& user = sent_by_[slot_of(buckets_.blocks(), index)];
    if (user >= 0) wait_and_accumulate(buffer(user));
    user = index;
  }
  own.sent = std::move(buckets);
  if (dp_.size() == 1) return;
  for (const BucketReduction* bucket : own.sent) {
    // A sum, not a mean: the loss is already scaled by 1 / target tokens of the global batch.
    BucketState& state = *bucket->state;
    if (casts(bucket)) state.sent.copy_(state.bucket->main_grad);
    const at::Tensor& sent = casts(bucket) ? state.sent : state.bucket->main_grad;
    own.in_flight.push_back(
        dp_.start_reduce_scatter(scattered_to(*bucket), sent, comm::ReduceOp::sum));
  }
}

// The step's first sum goes straight where the others are added.
at::Tensor& GradientReducer::scattered_to(const BucketReduction& bucket) const {
  BucketState& state = *bucket.state;
  if (state.sent.defined()) return state.sent_shard;
  const bool straight =
      layout_.accumulates && bucket.shard_is_empty && state.bucket->gradient_dtype == at::kFloat;
  return straight ? state.grad_shard : state.main_grad_shard;
}

void GradientReducer::wait_and_accumulate(Buffer& buffer) {
  const bool scattered = !buffer.in_flight.empty();
  for (const auto& work : buffer.in_flight) work->wait();
  for (BucketReduction* bucket : buffer.sent) {
    BucketState& state = *bucket->state;
    at::Tensor& result = scattered ? scattered_to(*bucket) : state.main_grad_shard;
    if (layout_.accumulates && !bucket->shard_is_empty) {
      state.grad_shard.add_(result);
    } else if (!result.is_same(state.grad_shard)) {
      state.grad_shard.copy_(result);
    }
    bucket->shard_is_empty = false;
  }
  buffer = {};
}

// The block's shards are the step's whole gradient.
void GradientReducer::finish_shards(int index) {
  wait_and_accumulate(buffer(index));
  if (!layout_.accumulates) return;
  for (BucketReduction& bucket : blocks_[index].buckets) {
    if (std::exchange(bucket.shard_is_empty, false)) bucket.state->grad_shard.zero_();
  }
}

// Stage 0. Not an all-reduce, which may add in another order: it must see the very bits of the
// others.
void GradientReducer::start_all_gather(int index) {
  Block& block = blocks_[index];
  if (!layout_.holds_all || dp_.size() == 1) return;
  if (std::exchange(block.gathers_started, true)) return;
  finish_shards(index);
  for (BucketReduction& bucket : block.buckets) {
    BucketState& state = *bucket.state;
    gathers_.push_back(dp_.start_all_gather(state.bucket->main_grad, state.grad_shard));
  }
}

}  // namespace tptrain::zero
