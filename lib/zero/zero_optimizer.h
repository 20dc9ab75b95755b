// ZeRO over buckets, hooked into the model through BlockObserver alone: reduces gradients over dp,
// takes the one global norm, updates the shard, gathers parameters.
//
// Stages 0 and 1 share everything but who updates what: 0 gathers the reduced gradients and every
// dp rank updates all; 1 updates its shard and gathers the parameters. Gradients are reduced once a
// step. They are not summed over tp: the layers leave the same whole gradient of a tp_replicated
// parameter on every tp rank. Besides the buckets it holds the two moments; the fp32 parameter is
// its own master.
//
// Source of the stages: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion
// Parameter Models", SC 2020.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "config/run_config.h"
#include "sharding/state_dict.h"
#include "tensor_parallel/block_observer.h"
#include "zero/param_buckets.h"

namespace tptrain::zero {

/// Device scalars of one step: the host reads them when it likes.
struct GradientNorm {
  /// fp32 scalar: 2-norm of the whole gradient before clipping, every element once.
  at::Tensor value;
  /// bool scalar: false where the norm, or a copy that the norm does not count, is inf or nan; the
  /// update is predicated on it.
  at::Tensor finite;
};

/// Deliberately wrong reductions: the parity suite must turn red under each of them. Production
/// passes none.
enum class Fault {
  none,
  scale_dp_sum,                     // the gradient is the mean over dp, not the sum
  double_count_replicated_in_norm,  // every tp rank counts its copy
  drop_norm_sum_over_tp,            // each tp rank clips by the norm of its own elements
  skip_dp_reduction                 // each dp rank keeps its own gradient
};

class ZeroOptimizer final : public tensor_parallel::BlockObserver {
 public:
  struct Options {
    int zero_stage = 1;
    config::OptimizerConfig optimizer = {};
    Fault fault = Fault::none;
  };
  /// `buckets`, `tp`, `dp` must outlive it. Parameters hold their initial values only after
  /// initialise() or a load into state_dict().
  ZeroOptimizer(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp,
                const Options& options);
  ~ZeroOptimizer() override;

  /// Layout-independent random values from (seed, name, global index); each rank makes only its own
  /// shard. Clears moments and the step counter. Collective over dp.
  void initialise(uint64_t seed);
  /// Parameters from a source (master values), each rank reading only its own shard; moments and
  /// the step counter are cleared. Collective over dp. Throws what the source throws, on the rank
  /// that meets it alone: it must leave through MpiSession::abort().
  void load_parameters(const sharding::TensorSource& source);
  /// Live views of master weights and moments, pieces as the checkpoint wants them.
  sharding::StateDict state_dict();
  /// To be called after pieces of state_dict() were overwritten: makes parameters from masters.
  /// `updates_done` restores Adam's step counter. Collective over dp.
  void state_loaded(int64_t updates_done);
  /// Updates applied so far (skipped, non-finite steps do not count); reads the device.
  int64_t updates_done() const;

  // The four calls of a step come in this order; another order throws InternalError.

  /// Before the first micro-batch of a step: gradients are zero. (May come again instead of clip
  /// and update: the gradients are dropped.)
  void begin_step();
  /// Sums over dp what the observer has not already reduced. Collective over dp.
  void finish_reduction();
  /// Norm of the reduced gradient; clipping is folded into the next update. max_norm 0: none.
  /// Collective over dp and tp.
  GradientNorm clip(double max_norm);
  /// AdamW on the shard, then parameters everywhere; nothing changes where the last clip() was not
  /// finite. Collective over dp.
  void update(double learning_rate);

  void before_forward(int block) override;
  void after_forward(int block) override;
  void before_backward(int block) override;
  void after_backward(int block) override;

  /// The reduced gradient of every named slice's part this rank owns, for audits; kind is unused.
  /// Between finish_reduction and update: AdamW on CUDA leaves the clipped gradient in its place.
  sharding::StateDict gradient_pieces();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::zero
