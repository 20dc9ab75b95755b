// What an AdamW update multiplies by: made of the options, the learning rate and the number of the
// update in double, rounded once. One definition for the loop on the CPU and the kernel on CUDA.
#pragma once

#include <cmath>

#include "base/host_device.h"

namespace tptrain::optim {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;         // of this range
  double learning_rate_scale = 1.0;  // likewise
  friend bool operator==(const AdamWOptions& a, const AdamWOptions& b) {
    return a.beta1 == b.beta1 && a.beta2 == b.beta2 && a.eps == b.eps &&
           a.weight_decay == b.weight_decay && a.learning_rate_scale == b.learning_rate_scale;
  }
};

struct AdamWConstants {
  float decay = 0.0f;  // lr * weight_decay
  float beta2 = 0.0f;
  float one_minus_beta1 = 0.0f;
  float one_minus_beta2 = 0.0f;
  float step_size = 0.0f;            // lr / (1 - beta1^t)
  float inverse_correction2 = 0.0f;  // 1 / sqrt(1 - beta2^t)
  float eps = 0.0f;
  float gradient_scale = 1.0f;
};

/// `update`: t, 1 in the first.
TPTRAIN_HOST_DEVICE inline AdamWConstants constants_of(const AdamWOptions& options,
                                                       double step_learning_rate, double update,
                                                       float gradient_scale) {
  const double learning_rate = step_learning_rate * options.learning_rate_scale;
  AdamWConstants constants;
  constants.decay = static_cast<float>(learning_rate * options.weight_decay);
  constants.beta2 = static_cast<float>(options.beta2);
  constants.one_minus_beta1 = static_cast<float>(1.0 - options.beta1);
  constants.one_minus_beta2 = static_cast<float>(1.0 - options.beta2);
  constants.step_size = static_cast<float>(learning_rate / (1.0 - std::pow(options.beta1, update)));
  constants.inverse_correction2 =
      static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options.beta2, update)));
  constants.eps = static_cast<float>(options.eps);
  constants.gradient_scale = gradient_scale;
  return constants;
}

}  // namespace tptrain::optim
