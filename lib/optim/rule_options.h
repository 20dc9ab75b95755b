// What the run file says about the update of a range: each rule takes what it knows.
#pragma once

namespace tptrain::optim {

struct RuleOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;         // of this range
  double learning_rate_scale = 1.0;  // likewise
  friend bool operator==(const RuleOptions& a, const RuleOptions& b) {
    return a.beta1 == b.beta1 && a.beta2 == b.beta2 && a.eps == b.eps &&
           a.weight_decay == b.weight_decay && a.learning_rate_scale == b.learning_rate_scale;
  }
};

}  // namespace tptrain::optim
