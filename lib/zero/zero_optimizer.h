// ZeRO over buckets, hooked into the model through BlockObserver alone: reduces gradients over dp, takes the one global norm, updates the shard, gathers parameters.
// Stage 0 and 1 share everything but who updates what: 0 gathers the reduced gradients and every dp rank updates all; 1 updates its shard and gathers the parameters.
// Source of the stages: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC 2020.
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
  at::Tensor value;   // fp32 scalar: 2-norm of the whole gradient before clipping, every element once
  at::Tensor finite;  // bool scalar: false where the norm is inf or nan; the update is predicated on it
};

/// Deliberately wrong reductions: the parity suite must turn red under each of them. Production passes none.
enum class Fault { none, scale_dp_sum, double_count_replicated_in_norm, drop_norm_sum_over_tp, skip_dp_reduction };

class ZeroOptimizer final : public tensor_parallel::BlockObserver {
 public:
  struct Options {
    int zero_stage = 1;
    config::OptimizerConfig optimizer;
    Fault fault = Fault::none;
  };
  /// `buckets`, `tp`, `dp` must outlive it. Parameters hold their initial values only after initialise() or a load into state_dict().
  ZeroOptimizer(ParamBuckets& buckets, comm::Communicator& tp, comm::Communicator& dp, const Options& options);
  ~ZeroOptimizer() override;

  /// Layout-independent random values from (seed, name, global index); each rank makes only its own slices. Clears moments.
  void initialise(uint64_t seed);
  /// Parameters from a source (master values); moments are cleared. Collective over dp.
  void load_parameters(const sharding::TensorSource& source);
  /// Live views of master weights and moments, pieces as the checkpoint wants them.
  sharding::StateDict state_dict();
  /// To be called after pieces of state_dict() were overwritten: makes parameters from masters. `updates_done` restores Adam's step counter. Collective over dp.
  void state_loaded(int64_t updates_done);
  /// Updates applied so far (skipped, non-finite steps do not count); reads the device.
  int64_t updates_done() const;

  /// Before the first micro-batch of a step: gradients are zero.
  void begin_step();
  /// Reduces over dp what the observer has not already reduced. Collective over dp and tp.
  void finish_reduction();
  /// Norm of the reduced gradient; clipping is folded into the next update. max_norm 0: none. Collective over dp and tp.
  GradientNorm clip(double max_norm);
  /// AdamW on the shard, then parameters everywhere; nothing changes where the last clip() was not finite. Collective over dp.
  void update(double learning_rate);

  void before_forward(int block) override;
  void after_forward(int block) override;
  void before_backward(int block) override;
  void after_backward(int block) override;

  /// The reduced gradient of every named slice's part this rank owns (after finish_reduction), for tests and audits: kind is unused.
  sharding::StateDict gradient_pieces();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tptrain::zero
