// What the run file says about the update of a range: each rule takes what it knows.
#pragma once

namespace tptrain::optim {

struct RuleOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;         // of this range
  double learning_rate_scale = 1.0;  // likewise
  double momentum = 0.95;            // of Muon
  bool nesterov = true;              // likewise
  double update_scale = 1.0;         // likewise, by the size of the matrix: muon.cpp's own
  friend bool operator==(const RuleOptions& a, const RuleOptions& b) {
    return a.beta1 == b.beta1 && a.beta2 == b.beta2 && a.eps == b.eps &&
           a.weight_decay == b.weight_decay && a.learning_rate_scale == b.learning_rate_scale &&
           a.momentum == b.momentum && a.nesterov == b.nesterov && a.update_scale == b.update_scale;
  }
};

}  // namespace tptrain::optim
