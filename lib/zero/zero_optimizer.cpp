// The step: what the observer sets off, one global norm, the update, parameters everywhere.
#include "zero/zero_optimizer.h"

#include <ATen/Functions.h>

#include <optional>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "optim/parameter_groups.h"
#include "tensor_parallel/vocab_parallel.h"
#include "zero/gradient_norm.h"
#include "zero/layout.h"
#include "zero/zero_impl.h"

namespace tptrain::zero {
namespace {

struct FlatRange {
  int64_t begin = 0;
  int64_t end = 0;
};

struct SettingsRange {
  FlatRange range;
  optim::GroupSettings settings;
  std::optional<optim::RoundingSite> rounding;
  std::vector<int64_t> matrix;
};

// The embedding's: the first of all parameters.
std::optional<TableRows> table_of(std::vector<BucketState>& states, comm::Communicator& dp,
                                  LookupRows lookup_rows) {
  if (states.empty() || dp.size() == 1) return std::nullopt;
  BucketState& first = states.front();
  if (first.bucket->block != 0 || !first.bucket->trains || !is_table(*first.bucket))
    return std::nullopt;
  return TableRows(first, dp, lookup_rows);
}

}  // namespace

ZeroOptimizer::Impl::Impl(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
                          const Options& options)
    : buckets(buckets),
      tp(tp),
      dp(dp),
      options(options),
      layout(state_layout(buckets.options(), options, dp.size())),
      device(buckets.options().device),
      states(make_states(buckets, layout)),
      table_rows(table_of(states, dp, options.lookup_rows)),
      gatherer(buckets, states, layout, dp, table_rows ? &table_rows->table() : nullptr,
               [this](int block) { deferred->need(block); }),
      reducer(buckets, states, layout, tp, dp, table_rows ? &*table_rows : nullptr) {
  const DpPosition position = buckets.dp();
  if (position.rank != dp.rank() || position.size != dp.size()) {
    throw InternalError(
        problem(cat("buckets laid out for dp rank ", position.rank, " of ", position.size,
                    ", communicator of dp rank ", dp.rank(), " of ", dp.size()))
            .must("be the same"));
  }
  for (const parameters::ParameterBlock& block : buckets.blocks()) {
    for (const parameters::Parameter* parameter : block.parameters) {
      parameter_names.push_back(parameter->name);
    }
  }
  const MatrixGrid grid = matrix_grid(layout, tp.size(), dp.size());
  const int blocks = blocks_per_part(buckets.buckets(), grid);
  if (!share_matrices(buckets.buckets(), grid).empty())
    matrices.emplace(buckets, states, grid, tp, dp);
  std::vector<optim::UpdateRange> ranges;
  NormViews views;
  for (const BucketState& state : states) {
    if (!state.bucket->trains) continue;
    append_ranges(state, state.bucket->block / blocks, ranges);
    append_norm_views(state, views);
  }
  squares.emplace(std::vector{std::move(views.owned), std::move(views.other)}, device,
                  std::vector{std::move(views.owned_marks), std::move(views.other_marks)});
  const auto on_device = at::TensorOptions().device(device);
  parameter_indices =
      at::arange(static_cast<int64_t>(parameter_names.size()), on_device.dtype(at::kLong));
  learning_rate = at::zeros({}, on_device.dtype(at::kDouble));
  updates = at::zeros({}, on_device.dtype(at::kFloat));
  gradient_scale = at::ones({}, on_device.dtype(at::kFloat));
  finite = at::zeros({}, on_device.dtype(at::kBool));
  deferred.emplace(
      layout.rule->update_of(std::move(ranges),
                             {.device = device,
                              .seed = options.seed,
                              .exchange = matrices ? &*matrices : nullptr,
                              .newton_schulz_steps = options.optimizer.muon.steps}),
      DeferredUpdate::Blocks{.count = static_cast<int>(buckets.blocks().size()), .of_part = blocks},
      device,
      optim::UpdateStep{.learning_rate = learning_rate,
                        .gradient_scale = gradient_scale,
                        .finite = finite,
                        .updates = updates});
}

// Neighbours with equal settings become one range: few ranges are few rows. A bf16 master is
// rounded by the place of each element in its tensor, so there a range ends where its slice does; a
// matrix is scaled by its size, and ends there too.
// Padding is in none of them.
void ZeroOptimizer::Impl::append_ranges(const BucketState& state, int part,
                                        std::vector<optim::UpdateRange>& ranges) const {
  const bool rounds = state.master.scalar_type() == at::kBFloat16;
  const bool of_matrices = state.bucket->unit == optim::Unit::matrix;
  std::vector<SettingsRange> found;
  for (const BucketPiece& piece : pieces_of(*state.bucket, state.held_begin, state.held_end)) {
    const sharding::ShardSpec& spec = piece.slice->spec;
    const optim::GroupSettings settings = optim::group_settings(options.optimizer, spec);
    const int64_t end = piece.bucket_begin + piece.count;
    if (!rounds && !of_matrices && !found.empty() && found.back().range.end == piece.bucket_begin &&
        found.back().settings == settings) {
      found.back().range.end = end;
      continue;
    }
    SettingsRange next{
        .range = {piece.bucket_begin, end}, .settings = settings, .rounding = {}, .matrix = {}};
    if (rounds) next.rounding = {.spec = spec, .begin = piece.slice_begin};
    if (of_matrices) next.matrix = spec.global_shape;
    found.push_back(std::move(next));
  }
  const bool separate_weights = layout.own_masters && layout.parameter_buffers == Buffers::own;
  for (SettingsRange& next : found) {
    const int64_t numel = next.range.end - next.range.begin;
    const int64_t held = next.range.begin - state.held_begin;
    std::vector<at::Tensor> slots;
    for (const at::Tensor& slot : state.slots) slots.push_back(slot.narrow(0, held, numel));
    ranges.push_back(
        {.master = state.master.narrow(0, held, numel),
         .slots = std::move(slots),
         .gradient = state.gradient.narrow(0, held, numel),
         .weights = separate_weights ? state.bucket->data.narrow(0, next.range.begin, numel)
                                     : at::Tensor(),
         .options = {.beta1 = options.optimizer.betas[0],
                     .beta2 = options.optimizer.betas[1],
                     .eps = options.optimizer.eps,
                     .weight_decay = next.settings.weight_decay,
                     .learning_rate_scale = next.settings.learning_rate_scale,
                     .momentum = options.optimizer.muon.momentum,
                     .nesterov = options.optimizer.muon.nesterov},
         .rounding = std::move(next.rounding),
         .part = part,
         .matrix = std::move(next.matrix),
         .work = of_matrices ? matrices->work_of(state).narrow(0, held, numel) : at::Tensor()});
  }
}

// The shard range in every stage, so that stages agree bitwise. Each element counts once over dp
// because shards are disjoint, once over tp because exactly one tp rank owns it.
void ZeroOptimizer::Impl::append_norm_views(const BucketState& state, NormViews& views) const {
  for (const BucketPiece& piece : pieces_of(*state.bucket, state.shard_begin, state.shard_end)) {
    at::Tensor view =
        state.grad_shard.narrow(0, piece.bucket_begin - state.shard_begin, piece.count);
    const bool owned = piece.slice->owned;
    (owned ? views.owned : views.other).push_back(std::move(view));
    (owned ? views.owned_marks : views.other_marks)
        .push_back(reducer.mark_for_norm(*piece.parameter));
  }
}

void ZeroOptimizer::Impl::require(Phase expected, const char* call, const char* remedy) const {
  if (phase == expected) return;
  throw InternalError(problem(cat(call, " of the optimizer was called out of order"))
                          .must("follow begin_step, finish_reduction, clip, update")
                          .remedy(remedy));
}

bool ZeroOptimizer::Impl::looks_up_rows() const {
  return table_rows && table_rows->travel() && !gatherer.holds_table();
}

void ZeroOptimizer::Impl::state_changes() {
  if (before_update) std::exchange(before_update, {})();
}

void ZeroOptimizer::Impl::finish_update() {
  if (phase == Phase::clipped) return;  // the flag is the coming update's, the last one was done
  if (!update_finished) state_changes();
  deferred->finish();
  if (!std::exchange(update_finished, true)) finite.fill_(false);
}

// -1: every gradient here was finite, and the loss; -2: the loss alone was not.
at::Tensor ZeroOptimizer::Impl::culprit(const at::Tensor& losses_finite) const {
  const at::Tensor without = losses_finite.to(at::kLong).sub_(2);
  if (parameter_indices.numel() == 0) return without;
  const int64_t none = parameter_indices.numel();
  const at::Tensor first = at::where(at::isfinite(reducer.marks()), none, parameter_indices).min();
  return at::where(first < none, first, without);
}

ZeroOptimizer::ZeroOptimizer(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
                             const Options& options)
    : impl_(std::make_unique<Impl>(buckets, tp, dp, options)) {}
ZeroOptimizer::~ZeroOptimizer() = default;

void ZeroOptimizer::call_before_update(std::function<void()> call) {
  impl_->before_update = std::move(call);
}

// The update of the step before it comes with the step's forward.
void ZeroOptimizer::prepare_step() {
  if (!impl_->update_finished) impl_->state_changes();
}

void ZeroOptimizer::begin_step() {
  impl_->reducer.clear();
  if (impl_->table_rows) impl_->table_rows->end();
  impl_->phase = Phase::accumulating;
}

void ZeroOptimizer::begin_micro_batch(MicroBatchPlace place, const at::Tensor& ids) {
  impl_->require(Phase::accumulating, "begin_micro_batch()",
                 "Call begin_step() before the first micro-batch of a step.");
  if (impl_->table_rows) impl_->table_rows->announce(ids);
  impl_->reducer.begin_micro_batch(place);
  // Beside the update of the table, which they do not depend on.
  if (impl_->looks_up_rows()) impl_->table_rows->gather_ids();
}

void ZeroOptimizer::finish_reduction() {
  impl_->require(Phase::accumulating, "finish_reduction()",
                 "Call it once a step: a second sum over dp would count every gradient dp times.");
  impl_->phase = Phase::reduced;
  impl_->deferred->finish();  // where no forward needed it: it reads the last step's gradients
  impl_->reducer.finish();
  if (impl_->table_rows) impl_->table_rows->end();
}

StepNumbers ZeroOptimizer::clip(double max_norm, const at::Tensor& local_losses) {
  impl_->require(Phase::reduced, "clip()", "Call finish_reduction() before it.");
  if (!local_losses.defined() || local_losses.dim() != 1 ||
      local_losses.scalar_type() != at::kFloat || local_losses.device() != impl_->device) {
    throw InternalError(problem("the losses given to clip()")
                            .must(cat("be a 1-D fp32 tensor on ", impl_->device.str())));
  }
  impl_->phase = Phase::clipped;

  StepNumbers numbers;
  const at::Tensor squares = (*impl_->squares)();  // and the marks of what they are of
  numbers.culprit = impl_->culprit(at::isfinite(local_losses).all());
  // [0]: what counts. [1]: copies whose owner is another tp rank. They must not count twice, but a
  // nan in one of them (a fault of this rank alone) has to stop the update everywhere, or the
  // copies would part. [2]: ranks with a culprit. [3..]: the losses.
  const at::Tensor words = at::cat(
      {squares, numbers.culprit.ne(-1).to(at::kDouble).view({1}), local_losses.to(at::kDouble)});
  const at::Tensor of_tp_ranks =
      gather_rows(sum_in_rank_order(gather_rows(words, impl_->dp)), impl_->tp);
  const at::Tensor sums = sum_in_rank_order(of_tp_ranks);

  numbers.norm = sums[0].sqrt().to(at::kFloat);
  // tp ranks of one dp rank have the same loss: row 0 serves all, so that they stay bitwise equal.
  numbers.losses = of_tp_ranks[0].slice(0, 3).to(at::kFloat);
  numbers.finite = at::isfinite(of_tp_ranks)
                       .all()
                       .logical_and_(at::isfinite(numbers.norm))
                       .logical_and_(of_tp_ranks.select(1, 2).sum().eq(0));

  impl_->finite.copy_(numbers.finite);
  impl_->update_finished = false;
  if (max_norm > 0) {
    // torch.nn.utils.clip_grad_norm_'s formula, 1e-6 included: users compare with it.
    impl_->gradient_scale.copy_((numbers.norm + 1e-6).reciprocal_().mul_(max_norm).clamp_max_(1.0));
  } else {
    impl_->gradient_scale.fill_(1.0);
  }
  return numbers;
}

void ZeroOptimizer::set_learning_rate(double learning_rate) {
  impl_->learning_rate.fill_(learning_rate);
}

void ZeroOptimizer::update(double learning_rate) {
  set_learning_rate(learning_rate);
  update();
}

void ZeroOptimizer::update() {
  impl_->require(Phase::clipped, "update()",
                 "Call clip() before it, with max_norm 0 for no limit.");
  impl_->phase = Phase::updated;
  impl_->gatherer.invalidate();
  impl_->deferred->begin();
}

void ZeroOptimizer::assume_updated() {
  // A step was dropped: its forward has applied the update before it, which the flag still holds.
  if (std::exchange(impl_->phase, Phase::updated) != Phase::updated) impl_->finish_update();
  impl_->gatherer.invalidate();
  impl_->deferred->assume_begun();
  impl_->update_finished = false;
}

void ZeroOptimizer::before_forward(int block) {
  if (impl_->phase == Phase::updated) impl_->finish_update();  // no step has begun: an evaluation
  const int other = impl_->buckets.blocks()[block].also_uses;
  if (other >= 0) impl_->deferred->need(other);
  impl_->deferred->need(block);
  impl_->deferred->run_ahead(block);
  impl_->gatherer.before_forward(
      block, impl_->looks_up_rows() ? Gatherer::Table::later : Gatherer::Table::now);
}

at::Tensor ZeroOptimizer::look_up(const parameters::Parameter& table, const at::Tensor& ids) {
  if (!impl_->looks_up_rows()) return tensor_parallel::table_rows(table, ids);
  return impl_->table_rows->look_up([this] { impl_->gatherer.run_ahead(0); });
}

void ZeroOptimizer::after_forward(int) {}

void ZeroOptimizer::before_backward(int block) {
  impl_->require(Phase::accumulating, "before_backward()",
                 "Call begin_step() before the backward of a new step.");
  impl_->deferred->finish();  // as in finish_reduction()
  impl_->reducer.begin_block(block);
  impl_->gatherer.before_backward(block);
}

void ZeroOptimizer::after_backward(int block) {
  impl_->require(Phase::accumulating, "after_backward()",
                 "Call begin_step() before the backward of a new step.");
  impl_->reducer.end_block(block);
}

void ZeroOptimizer::add_table_rows(parameters::Parameter& table, at::Tensor rows,
                                   const at::Tensor& ids) {
  impl_->require(Phase::accumulating, "add_table_rows()",
                 "Call begin_step() before the backward of a new step.");
  impl_->reducer.add_table_rows(table, std::move(rows), ids);
}

}  // namespace tptrain::zero
