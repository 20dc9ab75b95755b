// The synthetic model trained on one layout of the world's ranks, and its state put together from
// all of them.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "comm/device_mesh.h"
#include "mpi/zero/late_communicator.h"
#include "support/mpi.h"
#include "support/reduction_faults.h"
#include "unit/zero/synthetic_model.h"
#include "zero/zero_optimizer.h"

namespace tptrain::testing {

inline constexpr uint64_t kSeed = 42;
config::OptimizerConfig optimizer_config();

struct Layout {
  int tp = 1;
  int dp = 1;
  std::string text() const;
};
/// Every tp x dp of the world's size.
std::vector<Layout> layouts();

/// A whole way of training: everything but the numbers of the step.
struct Setup {
  Layout layout;
  int stage = 0;
  bool per_micro_batch = false;  // stages 2 and 3 always
  Head head = Head::own_table;
  at::ScalarType dtype = at::kFloat;
  at::ScalarType gradient_dtype = at::kFloat;
  at::ScalarType reduce_dtype = at::kFloat;
  config::Dtype moments = config::Dtype::fp32;
  config::Dtype masters = config::Dtype::fp32;
  ReductionFault fault = ReductionFault::none;
  comm::DeviceType device = comm::DeviceType::cpu;
  bool late = false;           // what is started over dp takes place when it is waited for
  bool announces_last = true;  // the step's last micro-batch
  bool looks_up = false;       // the embedding's gradient comes as rows, and travels so
  config::OptimizerType rule = config::OptimizerType::adamw;
  std::string text() const;
};

inline constexpr int kBlocks = 5;  // of the synthetic model
inline constexpr int kHead = kBlocks - 1;

/// Setups with something to communicate over dp, each as late as it may be.
std::vector<Setup> late_setups();

class GridRun {
 public:
  /// Collective over the world. Holds initial values of kSeed.
  explicit GridRun(const Setup& setup);

  /// A whole step, of kSamples micro-batches over all dp ranks. Collective over the world.
  zero::StepNumbers step(int index, const Hooks& hooks = {}, float loss = 1.0f);

  /// One kind of state put together from the pieces that ranks save, 1-D, in the order of
  /// global_tensors(). Adds a complaint unless each element is saved exactly once. Collective over
  /// the world; the same on every rank.
  std::vector<at::Tensor> assembled(sharding::StateKind kind, std::vector<std::string>& complaints);
  /// The reduced gradient, likewise.
  std::vector<at::Tensor> gradient(std::vector<std::string>& complaints);
  /// What is wrong with this rank's parameters where a forward uses them: not the assembled master
  /// in the compute dtype, a largest magnitude that is not theirs, or padding that is not zero any
  /// more. Collective over dp.
  std::vector<std::string> stale_parameters(const std::vector<at::Tensor>& master);
  /// Complaints of the audit: copies with hashes of their own. Collective over the world.
  std::vector<std::string> drifted_copies();
  /// Copies (on the CPU) of everything this rank holds: state, and parameters as a forward uses
  /// them. Collective over dp.
  std::vector<at::Tensor> snapshot();

  Setup setup;
  std::shared_ptr<comm::DeviceMesh> shared_mesh;
  tensor_parallel::BlockObserver& observer() { return zero; }

  comm::DeviceMesh& mesh;
  SyntheticModel model;
  zero::ParamBuckets buckets;
  LateCommunicator late_dp;  // used where the setup says so
  FaultyAxes axes;           // likewise
  zero::ZeroOptimizer zero;

 private:
  std::vector<at::Tensor> put_together(const std::vector<sharding::StatePiece>& pieces,
                                       sharding::StateKind kind,
                                       std::vector<std::string>& complaints);
};

/// One rank without buckets: AdamW on whole tensors, so that a layout of one dp rank must
/// agree at tolerance 0.
class WholeRun {
 public:
  explicit WholeRun(Head head = Head::own_table);
  /// Returns the norm before clipping.
  float step(int index);
  std::vector<at::Tensor> master, exp_avg, exp_avg_sq;  // 1-D, as GridRun::assembled
 private:
  Head head_;
  at::Tensor updates_;
};

/// Buckets of the blocks [first, last].
int64_t buckets_between(const GridRun& grid, int first, int last);

bool same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b);

/// True where any rank says so. Collective over the world.
bool on_any_rank(bool value);

}  // namespace tptrain::testing
