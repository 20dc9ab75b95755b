// What the AdamW tests share: the header's formula in fp64, and ranges and scalars on the device
// under test.
#pragma once

#include "kernels/reference.h"
#include "optim/update_rule.h"

namespace tptrain::testing {

struct Formula {  // fp64 on the CPU
  at::Tensor p, m, v;

  void update(const at::Tensor& gradient, const optim::RuleOptions& o, double lr, int64_t t) {
    p = p - lr * o.weight_decay * p;
    m = o.beta1 * m + (1.0 - o.beta1) * gradient;
    v = o.beta2 * v + (1.0 - o.beta2) * gradient * gradient;
    p = p - lr * (m / (1.0 - std::pow(o.beta1, t))) /
                ((v / (1.0 - std::pow(o.beta2, t))).sqrt() + o.eps);
  }
};

/// The rule over ranges.
class AdamWUpdate {
 public:
  AdamWUpdate(std::vector<optim::UpdateRange> ranges, const optim::UpdateSettings& settings)
      : update_(optim::update_rule(config::OptimizerType::adamw)
                    .update_of(std::move(ranges), settings)) {}
  void update(const optim::UpdateStep& step) { update_->run(step); }
  void begin(const optim::UpdateStep& step) { update_->begin(step); }
  void apply(int part, const optim::UpdateStep& step) { update_->apply(part, step); }

 private:
  std::unique_ptr<optim::Update> update_;
};

inline optim::UpdateRange fresh(const at::Tensor& master, const optim::RuleOptions& options) {
  const at::Tensor p = master.to(device(), at::kFloat).clone();
  return {.master = p,
          .slots = {at::zeros_like(p), at::zeros_like(p)},
          .gradient = at::zeros_like(p),
          .options = options};
}

/// Elements [begin, end) of a range that holds the whole slice.
inline optim::UpdateRange cut(const optim::UpdateRange& whole, int64_t begin, int64_t end) {
  const auto of = [&](const at::Tensor& tensor) { return tensor.narrow(0, begin, end - begin); };
  optim::UpdateRange part = whole;
  part.master = of(whole.master);
  part.slots[0] = of(whole.slots[0]);
  part.slots[1] = of(whole.slots[1]);
  part.gradient = of(whole.gradient);
  if (whole.weights.defined()) part.weights = of(whole.weights);
  if (part.rounding) part.rounding->begin = begin;
  return part;
}

/// The numbers of one update, on the device under test unless said otherwise.
struct Numbers {
  double learning_rate = 1e-3;
  double gradient_scale = 1.0;
  bool finite = true;
};
inline optim::UpdateStep step_of(const at::Tensor& updates, const Numbers& numbers) {
  const at::TensorOptions options(updates.device());
  return {.learning_rate = at::full({}, numbers.learning_rate, options.dtype(at::kDouble)),
          .gradient_scale = at::full({}, numbers.gradient_scale, options.dtype(at::kFloat)),
          .finite = at::full({}, numbers.finite, options.dtype(at::kBool)),
          .updates = updates};
}

inline at::Tensor scalar(double value) {
  return at::scalar_tensor(value, at::TensorOptions(device()).dtype(at::kFloat));
}

}  // namespace tptrain::testing
