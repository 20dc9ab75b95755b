// AdamW on flat shards: decoupled weight decay, bias correction, PyTorch's order of operations. Not
// here: which options a tensor gets (parameter_groups.h). Source: Loshchilov & Hutter, "Decoupled
// Weight Decay Regularization", ICLR 2019, algorithm 2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "optim/adamw_constants.h"
#include "sharding/shard_spec.h"

namespace tptrain::optim {

/// Where the elements of a bf16 master lie in their global tensor: stochastic rounding draws by
/// (seed, update, tensor name, global element), so that it is the same on every layout.
struct RoundingSite {
  sharding::ShardSpec spec;
  int64_t begin = 0;  // of the range's first element, in row-major order of the slice
};

/// One contiguous range that is updated alike; all 1-D of equal size on one device.
struct AdamWRange {
  at::Tensor master = {};      // fp32; or bf16, then `rounding` is given
  at::Tensor exp_avg = {};     // fp32 or bf16 (computed in fp32, stored rounded to nearest)
  at::Tensor exp_avg_sq = {};  // likewise
  at::Tensor gradient = {};    // fp32, reduced, not yet clipped
  at::Tensor weights = {};     // undefined, or bf16: receives the new master, rounded to nearest
  AdamWOptions options = {};
  std::optional<RoundingSite> rounding = {};
  int part = 0;  // what apply() updates together
};

/// The numbers of one update, 0-dimensional tensors on the device of the ranges: the host need not
/// know them, and a captured update finds new values in the same place.
struct AdamWStep {
  at::Tensor learning_rate = {};   // fp64
  at::Tensor gradient_scale = {};  // fp32: the clip factor
  at::Tensor finite = {};          // bool; false leaves everything as it is, bitwise
  at::Tensor updates = {};         // fp32: t-1 before and t after (unchanged where not finite)
};

class CudaUpdate;

class AdamW {
 public:
  struct Settings {
    at::Device device = at::kCPU;
    uint64_t seed = 0;  // of stochastic rounding
  };
  /// The ranges, in the order of their parts; their tensors keep their memory as long as this
  /// lives. Throws InternalError where they do not fit together or are not on `device`.
  AdamW(std::vector<AdamWRange> ranges, const Settings& settings);
  ~AdamW();
  AdamW(AdamW&&) noexcept;
  AdamW& operator=(AdamW&&) noexcept;

  /// p -= lr * wd * p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr * (m / (1-b1^t)) /
  /// (sqrt(v / (1-b2^t)) + eps), with g = gradient * gradient_scale and lr = learning_rate *
  /// learning_rate_scale. gradient is only read. On CUDA: no host synchronisation, no allocation,
  /// launches that are the same in every update.
  void update(const AdamWStep& step);

  // An update in pieces, to the same bits: begin(), then apply() of each part once, in any order
  // and on any stream behind begin().

  /// Takes learning_rate and gradient_scale, and counts the update.
  void begin(const AdamWStep& step);
  /// `step` as begin() found it, its counter as begin() left it. A part may have no ranges.
  void apply(int part, const AdamWStep& step);

 private:
  std::vector<AdamWRange> ranges_;
  std::vector<size_t> begins_;             // of the parts among the ranges, and the end
  std::vector<AdamWConstants> constants_;  // of the ranges, as begin() made them; on the CPU
  Settings settings_;
  std::unique_ptr<CudaUpdate> on_cuda_;  // or null
};

}  // namespace tptrain::optim
