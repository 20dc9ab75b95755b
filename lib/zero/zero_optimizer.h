// ZeRO over buckets, hooked into the model through BlockObserver alone: reduces gradients, takes
// the one global norm, updates the shard, gathers parameters.
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
// is updated when its next forward comes near, or when anything here is asked for the result.
//
// Source of the stages: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion
// Parameter Models", SC 2020.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "sharding/state_dict.h"
#include "tensor_parallel/block_observer.h"
#include "zero/options.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

/// Device values of one step: the host reads them when it likes.
struct StepNumbers {
  /// fp32 scalar: 2-norm of the whole gradient before clipping, every element once.
  at::Tensor norm;
  /// fp32 [k]: the losses given to clip(), summed over dp.
  at::Tensor losses;
  /// bool scalar, the same on every rank: false where a loss or a gradient (copies that the norm
  /// does not count included) of any rank is inf or nan; the update is predicated on it.
  at::Tensor finite;
  /// int64 scalar, of this rank alone: the first parameter (in the order of parameter_name) whose
  /// gradient was not finite here, before any rank's gradients were summed; -1: none; -2: this
  /// rank's loss was not finite.
  at::Tensor culprit;
};

class ZeroOptimizer final : public tensor_parallel::BlockObserver {
 public:
  using Options = zero::Options;
  /// `buckets`, `tp`, `dp` must outlive it. Parameters hold their initial values only after
  /// initialise() or a load into state_dict().
  ZeroOptimizer(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
                const Options& options);
  ~ZeroOptimizer() override;

  /// Runs what a rank does by itself, without communication, before all go on together: as it is,
  /// or through comm::agree, so that a failure or a stop of one rank ends it on every rank.
  using Locally = std::function<void(const std::function<void()>& work)>;
  static void at_once(const std::function<void()>& work) { work(); }

  /// Layout-independent random values from (seed, name, global index); each rank makes only its own
  /// shard. Clears the update rule's state and the step counter. Collective over dp.
  void initialise(uint64_t seed, const Locally& locally = at_once);
  /// Parameters from a source (master values), each rank reading only its own shard; the rule's
  /// state and the step counter are cleared. Collective over dp. Throws what the source throws;
  /// with at_once on the rank that meets it alone: it must leave through MpiSession::abort().
  void load_parameters(const sharding::TensorSource& source, const Locally& locally = at_once);
  /// Master weights (Options::frozen_values: whose) and the update rule's slots as the checkpoint
  /// wants them: live views in the type they are kept in. Takes no memory. A later update reaches
  /// the views at a time of its own: ask again after it. Finishes the last update: collective where
  /// that is (a rule by matrices).
  sharding::StateDict state_dict();
  /// To be called after pieces of state_dict(), asked for since the last update, were overwritten:
  /// makes parameters from masters. `updates_done` restores the step counter. Collective over
  /// dp.
  void state_loaded(int64_t updates_done);
  /// After state_dict(): `call` comes once, before an update writes into those views again. Beside
  /// a step that is captured it comes with prepare_step().
  void call_before_update(std::function<void()> call);
  /// Before a step, outside of a capture.
  void prepare_step();
  /// Updates applied so far (skipped, non-finite steps do not count); reads the device.
  int64_t updates_done() const;

  // The calls of a step come in this order; another order throws InternalError.

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
  /// here, announces sees the new value. Nothing changes where the last clip() was not finite.
  /// Nothing is under way in or beside the current stream afterwards: the work itself comes with
  /// the next forward.
  void update(double learning_rate);
  /// The same with the rate of the last set_learning_rate(), which the device alone holds: a
  /// captured step takes the one of its replay.
  void update();
  void set_learning_rate(double learning_rate);

  void before_forward(int block) override;
  void after_forward(int block) override;
  void before_backward(int block) override;
  void after_backward(int block) override;
  at::Tensor look_up(const parameters::Parameter& table, const at::Tensor& ids) override;
  void add_table_rows(parameters::Parameter& table, at::Tensor rows,
                      const at::Tensor& ids) override;

  /// For a step, begin_step() to update(), that is captured as a CUDA graph and replayed, of which
  /// the host's side of this object sees nothing: puts that side where update() leaves it. To be
  /// called before the capture, so that the graph applies the update before it (nothing, where that
  /// was done meanwhile) and gathers the parameters whatever ran before, and after each replay. Any
  /// step can be captured: what the host decides between these calls is the same in every step of
  /// as many micro-batches.
  void assume_updated();
  /// All parameters are complete in memory, for a reader that no before_forward() announces. Stages
  /// 0 to 2; InternalError in stage 3. Collective over dp.
  void gather_parameters();

  /// "model.layers.0.self_attn.qkv_proj.weight"; `index` as in StepNumbers::culprit.
  const std::string& parameter_name(int64_t index) const;

  /// What must be the same on several ranks, hashed: every slice of every parameter, gathered where
  /// this stage keeps only shards. Ranks that hold the same slice (name and begin) must have equal
  /// hashes. Collective over dp (stage 3). The order of slices is the same on every rank.
  struct SliceHash {
    std::string name;   // of the global tensor
    int64_t begin = 0;  // of the slice along its cut dimension; -1: the whole tensor
    uint64_t hash = 0;  // of the values in the compute dtype
  };
  std::vector<SliceHash> hash_parameters();

  /// The reduced gradient of every named slice's part this rank owns, for audits; kind is unused.
  /// Between finish_reduction and the next begin_step.
  sharding::StateDict gradient_pieces();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::zero
