// The synthetic model trained on one layout of the world's ranks, and its state put together from
// all of them.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "comm/device_mesh.h"
#include "support/mpi.h"
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

class GridRun {
 public:
  /// Collective over the world. Holds initial values of kSeed.
  GridRun(const Layout& layout, int zero_stage, zero::Fault fault = zero::Fault::none);

  /// A whole step. Collective over the world.
  zero::GradientNorm step(int index);

  /// One kind of state put together from the pieces that ranks save, 1-D, in the order of
  /// global_tensors(). Adds a complaint unless each element is saved exactly once. Collective over
  /// the world; the same on every rank.
  std::vector<at::Tensor> assembled(sharding::StateKind kind, std::vector<std::string>& complaints);
  /// The reduced gradient, likewise.
  std::vector<at::Tensor> gradient(std::vector<std::string>& complaints);
  /// Parts of this rank's parameters that are not the assembled master.
  std::vector<std::string> stale_parameters(const std::vector<at::Tensor>& master) const;
  /// Padding that is not zero any more.
  std::vector<std::string> dirty_padding() const;
  /// Copies of everything this rank holds: parameters, moments.
  std::vector<at::Tensor> snapshot();

  comm::DeviceMesh mesh;
  SyntheticModel model;
  zero::ParamBuckets buckets;
  zero::ZeroOptimizer zero;

 private:
  std::vector<at::Tensor> put_together(const std::vector<sharding::StatePiece>& pieces,
                                       sharding::StateKind kind,
                                       std::vector<std::string>& complaints);
};

/// One rank without buckets: adamw_update on whole tensors, so that a layout of one dp rank must
/// agree at tolerance 0.
class WholeRun {
 public:
  WholeRun();
  /// Returns the norm before clipping.
  float step(int index);
  std::vector<at::Tensor> master, exp_avg, exp_avg_sq;  // 1-D, as GridRun::assembled
 private:
  at::Tensor updates_;
};

/// True where any rank says so. Collective over the world.
bool on_any_rank(bool value);

}  // namespace tptrain::testing
