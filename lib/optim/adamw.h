// AdamW on flat shards: decoupled weight decay, bias correction, PyTorch's order of operations. No
// parameter groups beyond "decays or not" per range. Source: Loshchilov & Hutter, "Decoupled Weight
// Decay Regularization", ICLR 2019, algorithm 2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace tptrain::optim {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;  // of this range
};

/// One contiguous range that is updated alike; all 1-D fp32 of equal size on one device.
struct AdamWRange {
  at::Tensor master;
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
  at::Tensor gradient;  // reduced, not yet clipped
  AdamWOptions options;
};

/// p -= lr * wd * p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr * (m / (1-b1^t)) /
/// (sqrt(v / (1-b2^t)) + eps), with g = gradient * gradient_scale. gradient_scale: fp32 scalar on
/// the device (the clip factor). finite: bool scalar on the device; false leaves everything as it
/// is, bitwise. gradient: read on the CPU; on CUDA it is left scaled (where finite), by ATen's
/// fused kernel. updates: fp32 scalar on the device, t-1 before and t after (unchanged where not
/// finite). No host synchronisation on CUDA.
void adamw_update(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                  const at::Tensor& gradient_scale, const at::Tensor& finite, double learning_rate);

}  // namespace tptrain::optim
