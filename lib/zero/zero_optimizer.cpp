// The order of a step: which part is called when.
#include "zero/zero_optimizer.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "tensor_parallel/vocab_parallel.h"
#include "zero/bucket_state.h"
#include "zero/gatherer.h"
#include "zero/global_norm.h"
#include "zero/gradient_reducer.h"
#include "zero/layout.h"
#include "zero/shard_update.h"
#include "zero/table_rows.h"

namespace tptrain::zero {
namespace {

// The embedding's: the first of all parameters.
std::optional<TableRows> table_of(std::vector<BucketState>& states, comm::Communicator& dp,
                                  LookupRows lookup_rows) {
  if (states.empty() || dp.size() == 1) return std::nullopt;
  BucketState& first = states.front();
  if (first.bucket->block != 0 || !first.bucket->trains || !is_table(*first.bucket))
    return std::nullopt;
  return TableRows(first, dp, lookup_rows);
}

ParamBuckets& checked(ParamBuckets& buckets, const comm::Communicator& dp) {
  const DpPosition position = buckets.dp();
  if (position.rank == dp.rank() && position.size == dp.size()) return buckets;
  throw InternalError(
      problem(cat("buckets laid out for dp rank ", position.rank, " of ", position.size,
                  ", communicator of dp rank ", dp.rank(), " of ", dp.size()))
          .must("be the same"));
}

}  // namespace

struct ZeroOptimizer::Impl {
  /// A call out of order would train on gradients that were summed twice or not at all.
  enum class Phase { accumulating, reduced, clipped, updated };

  ParamBuckets& buckets;
  StepClock* clock;  // may be null
  at::Device device;
  StateLayout layout;
  std::vector<BucketState> states;
  std::optional<TableRows> table_rows;  // of block 0, where there is a table and dp has ranks
  Gatherer gatherer;
  GradientReducer reducer;
  GlobalNorm norm;
  ShardUpdate update;  // behind what it may be at work on
  ShardedState state;
  at::Tensor bounds;  // fp32 [2], of loss and norm; undefined: none
  Phase phase = Phase::accumulating;

  Impl(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
       const Options& options)
      : buckets(checked(buckets, dp)),
        clock(options.clock),
        device(buckets.options().device),
        layout(state_layout(buckets.options(), options, dp.size())),
        states(make_states(buckets, layout)),
        table_rows(table_of(states, dp, options.lookup_rows)),
        gatherer(buckets, states, layout, tp, dp, table_rows ? &table_rows->table() : nullptr,
                 [this](int block) { update.wait_for(block); }),
        reducer(buckets, states, layout, tp, dp, table_rows ? &*table_rows : nullptr),
        norm(buckets, states, reducer, tp, dp),
        update(buckets, states, layout, options, tp, dp),
        state({.buckets = buckets,
               .states = states,
               .layout = layout,
               .dp = dp,
               .update = update,
               .gatherer = gatherer,
               .reducer = reducer}) {
    constexpr float kNone = std::numeric_limits<float>::infinity();
    if (options.bounded)
      bounds = at::full({2}, kNone, at::TensorOptions().dtype(at::kFloat).device(device));
  }

  void require(Phase expected, const char* call, const char* remedy) const {
    if (phase == expected) return;
    throw InternalError(problem(cat(call, " of the optimizer was called out of order"))
                            .must("follow begin_step, finish_reduction, clip, update")
                            .remedy(remedy));
  }
  /// The coming look-up is of a table that this rank does not hold whole, and need not.
  bool looks_up_rows() const {
    return table_rows && table_rows->active() && !gatherer.holds_table();
  }
};

ZeroOptimizer::ZeroOptimizer(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
                             const Options& options)
    : impl_(std::make_unique<Impl>(buckets, tp, dp, options)) {}
ZeroOptimizer::~ZeroOptimizer() = default;

ShardedState& ZeroOptimizer::state() { return impl_->state; }
const ShardedState& ZeroOptimizer::state() const { return impl_->state; }

void ZeroOptimizer::prepare_step(double learning_rate) {
  impl_->update.announce();
  impl_->update.set_learning_rate(learning_rate);
}

void ZeroOptimizer::begin_step() {
  impl_->reducer.begin_step();
  if (impl_->table_rows) impl_->table_rows->end();
  impl_->update.drop_gradient();
  impl_->phase = Impl::Phase::accumulating;
}

void ZeroOptimizer::begin_micro_batch(MicroBatchPlace place, const at::Tensor& ids) {
  impl_->require(Impl::Phase::accumulating, "begin_micro_batch()",
                 "Call begin_step() before the first micro-batch of a step.");
  if (impl_->table_rows) impl_->table_rows->announce(ids);
  impl_->reducer.begin_micro_batch(place, ids.defined() ? Lookup::announced : Lookup::unknown);
  // Beside the update of the table, which they do not depend on.
  if (impl_->looks_up_rows()) impl_->table_rows->gather_ids();
}

void ZeroOptimizer::finish_reduction() {
  impl_->require(Impl::Phase::accumulating, "finish_reduction()",
                 "Call it once a step: a second sum over dp would count every gradient dp times.");
  impl_->phase = Impl::Phase::reduced;
  impl_->update.wait_for_all();  // where no forward needed it: it reads the last step's gradients
  impl_->reducer.finish();
  if (impl_->table_rows) impl_->table_rows->end();
}

StepNumbers ZeroOptimizer::clip(double max_norm, const at::Tensor& local_losses) {
  impl_->require(Impl::Phase::reduced, "clip()", "Call finish_reduction() before it.");
  if (!local_losses.defined() || local_losses.dim() != 1 ||
      local_losses.scalar_type() != at::kFloat || local_losses.device() != impl_->device) {
    throw InternalError(problem("the losses given to clip()")
                            .must(cat("be a 1-D fp32 tensor on ", impl_->device.str())));
  }
  impl_->phase = Impl::Phase::clipped;
  const StepClock::In phase(impl_->clock, StepPhase::optimizer);
  StepNumbers numbers = impl_->norm(local_losses);
  // torch.nn.utils.clip_grad_norm_'s formula, 1e-6 included: users compare with it.
  const at::Tensor scale = max_norm > 0
                               ? (numbers.norm + 1e-6).reciprocal_().mul_(max_norm).clamp_max_(1.0)
                               : at::ones_like(numbers.norm);
  numbers.applied = numbers.finite;
  if (impl_->bounds.defined())
    numbers.applied = at::stack({numbers.losses[0], numbers.norm})
                          .le(impl_->bounds)
                          .all()
                          .logical_and_(numbers.finite);
  impl_->update.set_gradient(numbers.applied, scale);
  return numbers;
}

void ZeroOptimizer::set_bounds(float loss, float norm) {
  if (!impl_->bounds.defined())
    throw InternalError(problem("bounds of an update").must("be asked for at the beginning"));
  impl_->bounds[0].fill_(loss);
  impl_->bounds[1].fill_(norm);
}

void ZeroOptimizer::update() {
  impl_->require(Impl::Phase::clipped, "update()",
                 "Call clip() before it, with max_norm 0 for no limit.");
  impl_->phase = Impl::Phase::updated;
  impl_->gatherer.invalidate();
  impl_->update.begin();
}

void ZeroOptimizer::assume_updated() {
  if (std::exchange(impl_->phase, Impl::Phase::updated) != Impl::Phase::updated) {
    // A step was dropped: its forward has applied the update before it, which the flag still holds.
    impl_->update.drop_gradient();
    impl_->update.finish();
  }
  impl_->gatherer.invalidate();
  impl_->update.assume_begun();
}

void ZeroOptimizer::before_forward(int block) {
  ShardUpdate& update = impl_->update;
  if (impl_->phase == Impl::Phase::updated) update.finish();  // no step has begun: an evaluation
  {
    const StepClock::In phase(impl_->clock, StepPhase::optimizer);
    const int other = impl_->buckets.blocks()[block].also_uses;
    if (other >= 0) update.wait_for(other);
    update.wait_for(block);
    update.run_ahead(block);
  }
  impl_->gatherer.before_forward(
      block, impl_->looks_up_rows() ? Gatherer::Table::later : Gatherer::Table::now);
}

at::Tensor ZeroOptimizer::look_up(const parameters::Parameter& table, const at::Tensor& ids) {
  if (!impl_->looks_up_rows()) return tensor_parallel::table_rows(table, ids);
  return impl_->table_rows->look_up([this] { impl_->gatherer.prefetch_behind(0); });
}

void ZeroOptimizer::after_forward(int) {}

void ZeroOptimizer::before_backward(int block) {
  impl_->require(Impl::Phase::accumulating, "before_backward()",
                 "Call begin_step() before the backward of a new step.");
  impl_->update.wait_for_all();  // as in finish_reduction()
  impl_->reducer.before_backward(block);
  impl_->gatherer.before_backward(block);
}

void ZeroOptimizer::after_backward(int block) {
  impl_->require(Impl::Phase::accumulating, "after_backward()",
                 "Call begin_step() before the backward of a new step.");
  impl_->reducer.after_backward(block);
}

void ZeroOptimizer::add_table_rows(parameters::Parameter& table, at::Tensor rows,
                                   const at::Tensor& ids) {
  impl_->require(Impl::Phase::accumulating, "add_table_rows()",
                 "Call begin_step() before the backward of a new step.");
  impl_->reducer.add_table_rows(table, std::move(rows), ids);
}

}  // namespace tptrain::zero
