// AdamW on flat shards: decoupled weight decay, bias correction, PyTorch's order of operations. Not
// here: which options a tensor gets (parameter_groups.h). Source: Loshchilov & Hutter, "Decoupled
// Weight Decay Regularization", ICLR 2019, algorithm 2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "sharding/shard_spec.h"

namespace tptrain::optim {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;         // of this range
  double learning_rate_scale = 1.0;  // likewise
};

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
};

struct AdamWStep {
  double learning_rate = 0.0;
  uint64_t seed = 0;  // of stochastic rounding
};

/// p -= lr * wd * p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr * (m / (1-b1^t)) /
/// (sqrt(v / (1-b2^t)) + eps), with g = gradient * gradient_scale and lr = learning_rate *
/// learning_rate_scale. gradient_scale: fp32 scalar on the device (the clip factor). finite: bool
/// scalar on the device; false leaves everything as it is, bitwise. gradient is only read.
/// updates: fp32 scalar on the device, t-1 before and t after (unchanged where not finite). No host
/// synchronisation on CUDA.
void adamw_update(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                  const at::Tensor& gradient_scale, const at::Tensor& finite,
                  const AdamWStep& step);

}  // namespace tptrain::optim
