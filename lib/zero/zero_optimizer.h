// The step of ZeRO over buckets, hooked into the model through BlockObserver alone: it puts in
// order what the parts of this folder do.
//
//   GradientReducer   gradients over tp and dp into this rank's shard
//   GlobalNorm        the one norm of the shards, and whether all is finite
//   ShardUpdate       the rule's update of the shard
//   Gatherer          parameters over dp before they are used
//   ShardedState      masters and slots, for whoever begins, saves, loads and audits
//
//   stage   parameters   gradients   optimizer state (masters, moments)
//   0       all          all         all
//   1       all          all         shard
//   2       all          shard       shard
//   3       shard        shard       shard
//
// Every stage reduces the same buckets by reduce_scatter into the same shards, takes the norm from
// the same pieces and updates by the same rule, so at one cadence all stages are bitwise equal.
// Cadence per step: gradients of all micro-batches add up in main_grad and are reduced once.
// Cadence per micro-batch: main_grad holds one micro-batch's gradient, which is reduced into an
// accumulating shard in after_backward. Before the sum over dp comes the sum over tp, one
// collective a block over partial gradients of replicated parameters and the copies of kv heads.
//
// Communication over dp runs beside the model's work. A block's gradients set out when they are
// complete, beside the backward of the blocks before it. An update leaves parameters to be
// gathered: a block's are when its next forward comes near, beside the blocks before it, in every
// stage that updates shards. So does the update itself: update() fixes its numbers, and a block
// is updated when its next forward comes near, or when state() is asked for the result.
//
// Source of the stages: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion
// Parameter Models", SC 2020.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "comm/communicator.h"
#include "tensor_parallel/block_observer.h"
#include "zero/options.h"
#include "zero/param_buckets.h"
#include "zero/sharded_state.h"
#include "zero/step_numbers.h"

namespace tptrain::zero {

class ZeroOptimizer final : public tensor_parallel::BlockObserver {
 public:
  using Options = zero::Options;
  /// `buckets`, `tp`, `dp` must outlive it. Parameters hold their initial values only after
  /// state().initialise() or a load.
  ZeroOptimizer(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
                const Options& options);
  ~ZeroOptimizer() override;

  ShardedState& state();
  const ShardedState& state() const;

  // The calls of a step come in this order, those of the observer between begin_micro_batch() and
  // finish_reduction(); another order throws InternalError.

  /// Before a step, outside of a capture: what the device alone holds of it, so that a captured
  /// step takes the numbers of its replay. learning_rate: of its update.
  void prepare_step(double learning_rate);
  /// Likewise, with Options::bounded: where the first loss or the norm of the step is above its
  /// bound nothing is updated. They stay; infinite at first.
  void set_bounds(float loss, float norm);
  /// Before the first micro-batch of a step: gradients are zero. (May come again instead of clip
  /// and update: the gradients are dropped.)
  void begin_step();
  /// Before each micro-batch. May be left out: gradients that are reduced once a step are then
  /// reduced in finish_reduction(), to the same bits but for the look-up's. `ids`: what the
  /// embedding will look up, as many on every dp rank; undefined: whatever that is, the whole table
  /// goes over dp.
  void begin_micro_batch(MicroBatchPlace place, const at::Tensor& ids = {});
  /// Sums over tp (partial gradients and copies, one collective a block) and over dp what the
  /// observer has not already reduced. Collective over tp and dp.
  void finish_reduction();
  /// Norm of the reduced gradient; clipping is folded into the next update. max_norm 0: none. Both
  /// axes exchange a few words, once.
  /// local_losses: fp32 [k], this dp rank's, the same on its tp ranks. Collective over dp and tp.
  StepNumbers clip(double max_norm, const at::Tensor& local_losses);
  /// The rule's update of the shard; the next use of a parameter that before_forward(), or a call
  /// of state(), announces sees the new value. Nothing changes where the last clip() was not
  /// finite. Nothing is in flight in or beside the current stream afterwards: the work itself comes
  /// with the next forward.
  void update();

  /// For a step, begin_step() to update(), that is captured as a CUDA graph and replayed, of which
  /// the host's side of this object sees nothing: puts that side where update() leaves it. To be
  /// called before the capture, so that the graph applies the update before it (nothing, where that
  /// was done meanwhile) and gathers the parameters whatever ran before, and after each replay. Any
  /// step can be captured: what the host decides between these calls is the same in every step of
  /// as many micro-batches.
  void assume_updated();

 private:
  // The model's: through BlockObserver.
  void before_forward(int block) override;
  void after_forward(int block) override;
  void before_backward(int block) override;
  void after_backward(int block) override;
  at::Tensor look_up(const parameters::Parameter& table, const at::Tensor& ids) override;
  void add_table_rows(parameters::Parameter& table, at::Tensor rows,
                      const at::Tensor& ids) override;

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::zero
