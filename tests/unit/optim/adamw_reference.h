// What the AdamW tests share: the header's formula in fp64, and ranges and scalars on the device
// under test.
#pragma once

#include "kernels/reference.h"
#include "optim/adamw.h"

namespace tptrain::testing {

struct Formula {  // fp64 on the CPU
  at::Tensor p, m, v;

  void update(const at::Tensor& gradient, const optim::AdamWOptions& o, double lr, int64_t t) {
    p = p - lr * o.weight_decay * p;
    m = o.beta1 * m + (1.0 - o.beta1) * gradient;
    v = o.beta2 * v + (1.0 - o.beta2) * gradient * gradient;
    p = p - lr * (m / (1.0 - std::pow(o.beta1, t))) /
                ((v / (1.0 - std::pow(o.beta2, t))).sqrt() + o.eps);
  }
};

inline optim::AdamWRange fresh(const at::Tensor& master, const optim::AdamWOptions& options) {
  const at::Tensor p = master.to(device(), at::kFloat).clone();
  return {.master = p,
          .exp_avg = at::zeros_like(p),
          .exp_avg_sq = at::zeros_like(p),
          .gradient = at::zeros_like(p),
          .options = options};
}

inline at::Tensor scalar(double value) {
  return at::scalar_tensor(value, at::TensorOptions(device()).dtype(at::kFloat));
}
inline at::Tensor flag(bool value) {
  return at::scalar_tensor(value ? 1 : 0, at::TensorOptions(device()).dtype(at::kBool));
}

}  // namespace tptrain::testing
