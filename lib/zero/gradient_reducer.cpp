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

enum class Tables { looked_up, multiplied };

// Whether a step's first writer of the gradient is linear_weight_gradient. A look-up adds rows, and
// norms and biases add sums: theirs must begin at zero.
bool gemm_writes_first(const parameters::Parameter& parameter, Tables tables) {
  if (parameter.shape.size() != 2) return false;
  switch (parameter.role) {
    case parameters::Role::column_parallel:
    case parameters::Role::row_parallel:
      return true;
    case parameters::Role::vocab_parallel:
      return tables == Tables::multiplied;
    case parameters::Role::replicated:
      return false;
  }
  return false;
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
      blocks_(buckets.blocks().size()),
      buffers_(buffer_count(buckets.blocks(), layout.gradient_buffers)) {
  sent_by_.fill(-1);
  int64_t parameters = 0;
  for (const parameters::ParameterBlock& block : buckets.blocks()) {
    parameters += static_cast<int64_t>(block.parameters.size());
    if (block.also_uses >= 0) blocks_[block.also_uses].cleared_by_user = true;
  }
  marks_ = at::zeros({parameters},
                     at::TensorOptions().dtype(at::kFloat).device(buckets.options().device));
  for (BucketState& state : states) {
    if (!state.bucket->trains) continue;
    const int block = state.bucket->block;
    blocks_[block].pieces.push_back(make_bucket_reduction(block, state));
    for (parameters::Parameter* parameter : blocks_[block].pieces.back().overwritable) {
      unwritten_.emplace(parameter, false);
      parameter->gradient_owner = this;
    }
  }
  if (rows != nullptr) find_table(*rows);
  int64_t next = 0;
  for (int b = 0; b < static_cast<int>(blocks_.size()); ++b) {
    std::vector<at::Tensor> gradients;
    for (const parameters::Parameter* parameter : buckets.blocks()[b].parameters) {
      if (!parameter->trains) {
        gradients.emplace_back();
        continue;
      }
      if (changes_before_norm(*parameter)) {
        gradients.push_back(parameter->main_grad.view({-1}));
        continue;
      }
      const int64_t index = next + static_cast<int64_t>(gradients.size());
      marks_for_norm_.emplace(parameter, marks_.narrow(0, index, 1));
      gradients.emplace_back();
    }
    if (b == 0 && table_) {  // its first
      table_->mark = marks_.narrow(0, 0, 1);
      table_->marks = NonfiniteMarks({gradients[0]}, table_->mark);
      gradients.erase(gradients.begin());
      next = 1;
    }
    const auto count = static_cast<int64_t>(gradients.size());
    blocks_[b].marks = NonfiniteMarks(std::move(gradients), marks_.narrow(0, next, count));
    next += count;
    blocks_[b].tp_sum = make_tp_sum(b);
  }
}

GradientReducer::~GradientReducer() {
  for (const Block& block : blocks_) {
    for (const BucketReduction& piece : block.pieces) {
      for (parameters::Parameter* parameter : piece.overwritable) {
        if (parameter->gradient_owner == this) parameter->gradient_owner = nullptr;
      }
    }
  }
}

bool GradientReducer::is_first_write(const parameters::Parameter& parameter) const {
  return unwritten_.at(&parameter);
}

void GradientReducer::written(const parameters::Parameter& parameter) {
  unwritten_.at(&parameter) = false;
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

at::Tensor GradientReducer::mark_for_norm(const parameters::Parameter& parameter) const {
  const auto found = marks_for_norm_.find(&parameter);
  return found == marks_for_norm_.end() ? at::Tensor() : found->second;
}

void GradientReducer::find_table(TableRows& rows) {
  for (BucketReduction& piece : blocks_.front().pieces) {
    if (piece.state->bucket->parameters[0] != &rows.table()) continue;
    table_.emplace(Table{.rows = rows,
                         .piece = &piece,
                         .marks = {},
                         .mark = {},
                         .is_tied = blocks_.front().cleared_by_user});
  }
}

GradientReducer::TpSum GradientReducer::make_tp_sum(int block) const {
  TpSum sum;
  if (tp_.size() == 1) return sum;
  const TpRegion& region = buckets_.tp_region(block);
  sum.whole = region.whole;
  if (!region.staging.defined()) return sum;
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

GradientReducer::BucketReduction GradientReducer::make_bucket_reduction(int block,
                                                                        BucketState& state) const {
  const auto& declared = buckets_.blocks();
  const int head = static_cast<int>(declared.size()) - 1;
  // The head multiplies with its table, its own or the tied one, before the look-up's rows are
  // added.
  const bool multiplied = block == head || declared[head].also_uses == block;
  BucketReduction piece{.state = &state, .overwritable = {}, .zeroed = {}};
  const Bucket& bucket = *state.bucket;
  int64_t next = 0;
  const auto zero_until = [&](int64_t end) {
    if (next < end) piece.zeroed.push_back(bucket.main_grad.narrow(0, next, end - next));
  };
  for (size_t i = 0; i < bucket.parameters.size(); ++i) {
    parameters::Parameter* parameter = bucket.parameters[i];
    if (!gemm_writes_first(*parameter, multiplied ? Tables::multiplied : Tables::looked_up))
      continue;
    piece.overwritable.push_back(parameter);
    zero_until(bucket.offsets[i]);
    next = bucket.offsets[i] + parameter->numel();
  }
  zero_until(bucket.numel);
  return piece;
}

void GradientReducer::clear() {
  for (Buffer& buffer : buffers_) {
    for (const auto& work : buffer.in_flight) work->wait();  // it still writes main_grad
    buffer = {};
  }
  for (const auto& work : gathers_) work->wait();
  gathers_.clear();
  sent_by_.fill(-1);
  place_ = MicroBatchPlace::before_last;
  memory_is_clear_ = false;
  for (Block& block : blocks_) {
    block.started = false;
    block.gathers_started = false;
    for (BucketReduction& piece : block.pieces) piece.shard_is_empty = true;
  }
  if (!table_) return;
  table_->sends_rows = false;
  table_->is_written = false;
}

void GradientReducer::begin_micro_batch(MicroBatchPlace place) {
  place_ = place;
  if (!table_) return;
  const bool reduces = layout_.accumulates || place == MicroBatchPlace::last;
  table_->sends_rows = reduces && table_->rows.travel();
  table_->rows_came = false;
}

void GradientReducer::clear_memory() {
  if (std::exchange(memory_is_clear_, true)) return;
  std::vector<at::Tensor> zeroed = {marks_};
  for (Block& block : blocks_) {
    if (layout_.accumulates) break;
    for (const BucketReduction& piece : block.pieces) append_unwritten(piece, zeroed);
  }
  zero_all(zeroed);
}

void GradientReducer::begin_block(int index) {
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
  if (block.cleared_by_user) zero_unwritten(block);  // its own backward only adds
}

void GradientReducer::end_block(int index) {
  const bool last = place_ == MicroBatchPlace::last;
  // Its reduction began a block's backward ago: the current stream hardly waits for it.
  const int earlier = index + 2;
  if (last && earlier < static_cast<int>(blocks_.size())) gather_gradient(earlier);
  if (layout_.accumulates || last) start(index);
  if (index + 1 == static_cast<int>(blocks_.size()) && sends_rows()) start_table();
}

void GradientReducer::add_table_rows(parameters::Parameter& table, at::Tensor rows,
                                     const at::Tensor& ids) {
  if (!sends_rows()) {
    if (table_) table_->is_written = true;
    tensor_parallel::add_table_rows(table, std::move(rows), ids);
    return;
  }
  table_->rows.add(rows, [&] {
    const at::Tensor bad = at::isfinite(rows).all().logical_not_();
    table_->mark.masked_fill_(bad, std::numeric_limits<float>::infinity());
    accumulate(buffer(0));  // what start_table() sent
    BucketReduction& piece = *table_->piece;
    if (std::exchange(piece.shard_is_empty, false)) piece.state->grad_shard.zero_();
  });
  table_->rows_came = true;
}

void GradientReducer::finish() {
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

// Of a table whose rows travel only what the head adds is ever read.
void GradientReducer::append_unwritten(const BucketReduction& piece,
                                       std::vector<at::Tensor>& zeroed) {
  if (goes_as_rows(piece) && !table_->is_tied) return;
  for (const parameters::Parameter* parameter : piece.overwritable) unwritten_.at(parameter) = true;
  zeroed.insert(zeroed.end(), piece.zeroed.begin(), piece.zeroed.end());
}

// In its buffer: whatever was there has been accumulated.
void GradientReducer::make_zero(int index) {
  accumulate(buffer(index));
  std::vector<at::Tensor> zeroed;
  for (const BucketReduction& piece : blocks_[index].pieces) append_unwritten(piece, zeroed);
  zero_all(zeroed);
}

// A gradient that nobody has written is zero.
void GradientReducer::zero_unwritten(Block& block) {
  for (BucketReduction& piece : block.pieces) {
    for (parameters::Parameter* parameter : piece.overwritable) {
      if (std::exchange(unwritten_.at(parameter), false)) parameter->main_grad.zero_();
    }
  }
}

GradientReducer::Buffer& GradientReducer::buffer(int block) {
  return buffers_[buffer_of(buckets_.blocks(), block, layout_.gradient_buffers)];
}

void GradientReducer::start(int index) {
  Block& block = blocks_[index];
  if (index == 0 && sends_rows() && !table_->rows_came) {
    throw InternalError(problem("a micro-batch's backward without the rows of its look-up")
                            .must("give them to add_table_rows()"));
  }
  zero_unwritten(block);
  block.marks.update();
  sum_over_tp(block);
  std::vector<BucketReduction*> pieces;
  for (BucketReduction& piece : block.pieces) {
    if (goes_as_rows(piece)) continue;
    if (table_ && &piece == table_->piece) {
      table_->marks.update();
      table_->is_written = false;
    }
    pieces.push_back(&piece);
  }
  send(index, std::move(pieces));
  block.started = true;
}

// What is in main_grad when the head's backward is complete; where nothing is, there is no share.
void GradientReducer::start_table() {
  if (table_->is_tied || table_->is_written) {
    table_->marks.update();
    send(0, {table_->piece});
  }
  table_->rows.gather_ids();
}

void GradientReducer::send(int index, std::vector<BucketReduction*> pieces) {
  Buffer& own = buffer(index);
  accumulate(own);
  const auto casts = [](const BucketReduction* piece) { return piece->state->sent.defined(); };
  if (std::ranges::any_of(pieces, casts)) {
    int& user = sent_by_[slot_of(buckets_.blocks(), index)];
    if (user >= 0) accumulate(buffer(user));
    user = index;
  }
  own.sent = std::move(pieces);
  if (dp_.size() == 1) return;
  for (const BucketReduction* piece : own.sent) {
    // A sum, not a mean: the loss is already scaled by 1 / target tokens of the global batch.
    BucketState& state = *piece->state;
    if (casts(piece)) state.sent.copy_(state.bucket->main_grad);
    const at::Tensor& sent = casts(piece) ? state.sent : state.bucket->main_grad;
    own.in_flight.push_back(
        dp_.start_reduce_scatter(scattered_to(*piece), sent, comm::ReduceOp::sum));
  }
}

// The step's first sum goes straight where the others are added.
at::Tensor& GradientReducer::scattered_to(const BucketReduction& piece) const {
  BucketState& state = *piece.state;
  if (state.sent.defined()) return state.sent_piece;
  const bool straight =
      layout_.accumulates && piece.shard_is_empty && state.bucket->gradient_dtype == at::kFloat;
  return straight ? state.grad_shard : state.grad_piece;
}

void GradientReducer::sum_over_tp(Block& block) {
  TpSum& sum = block.tp_sum;
  if (!sum.whole.defined()) return;
  if (sum.staging.defined()) {
    sum.staging.zero_();
    at::_foreach_copy_(sum.places, sum.gradients);
  }
  tp_.all_reduce(sum.whole, comm::ReduceOp::sum);
  if (sum.staging.defined()) at::_foreach_copy_(sum.gradients, sum.places);
}

void GradientReducer::accumulate(Buffer& buffer) {
  const bool scattered = !buffer.in_flight.empty();
  for (const auto& work : buffer.in_flight) work->wait();
  for (BucketReduction* piece : buffer.sent) {
    BucketState& state = *piece->state;
    at::Tensor& result = scattered ? scattered_to(*piece) : state.grad_piece;
    if (layout_.accumulates && !piece->shard_is_empty) {
      state.grad_shard.add_(result);
    } else if (!result.is_same(state.grad_shard)) {
      state.grad_shard.copy_(result);
    }
    piece->shard_is_empty = false;
  }
  buffer = {};
}

// The block's shards are the step's whole gradient.
void GradientReducer::complete(int index) {
  accumulate(buffer(index));
  if (!layout_.accumulates) return;
  for (BucketReduction& piece : blocks_[index].pieces) {
    if (std::exchange(piece.shard_is_empty, false)) piece.state->grad_shard.zero_();
  }
}

// Stage 0. Not an all-reduce, which may add in another order: it must see the very bits of the
// others.
void GradientReducer::gather_gradient(int index) {
  Block& block = blocks_[index];
  if (!layout_.holds_all || dp_.size() == 1) return;
  if (std::exchange(block.gathers_started, true)) return;
  complete(index);
  for (BucketReduction& piece : block.pieces) {
    BucketState& state = *piece.state;
    gathers_.push_back(dp_.start_all_gather(state.bucket->main_grad, state.grad_shard));
  }
}

}  // namespace tptrain::zero
