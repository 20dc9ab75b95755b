// Lion of one element: the sign of a mean of momentum and gradient, and one slot of state. One
// definition for the loop on the CPU and the kernel on CUDA. Source: Chen et al., "Symbolic
// Discovery of Optimization Algorithms", NeurIPS 2023, program 1.
#pragma once

#include "base/host_device.h"
#include "optim/rule_options.h"

namespace tptrain::optim {

/// c = b1 m + (1-b1) g;  p -= lr * (sign(c) + wd * p);  m = b2 m + (1-b2) g, with g = gradient *
/// gradient_scale and lr = learning_rate * learning_rate_scale. Every element moves by lr in each
/// update: rates are 3 to 10 times smaller than AdamW's, decays as much larger.
struct Lion {
  static constexpr const char* kName = "lion";
  static constexpr int kSlots = 1;
  static constexpr const char* kSlotNames[kSlots] = {"exp_avg"};

  struct Constants {
    float decay = 0.0f;  // lr * weight_decay
    float one_minus_beta1 = 0.0f;
    float one_minus_beta2 = 0.0f;
    float step_size = 0.0f;  // lr
    float gradient_scale = 1.0f;
  };

  TPTRAIN_HOST_DEVICE static Constants constants_of(const RuleOptions& options,
                                                    double step_learning_rate, double /*update*/,
                                                    float gradient_scale) {
    const double learning_rate = step_learning_rate * options.learning_rate_scale;
    Constants constants;
    constants.decay = static_cast<float>(learning_rate * options.weight_decay);
    constants.one_minus_beta1 = static_cast<float>(1.0 - options.beta1);
    constants.one_minus_beta2 = static_cast<float>(1.0 - options.beta2);
    constants.step_size = static_cast<float>(learning_rate);
    constants.gradient_scale = gradient_scale;
    return constants;
  }

  TPTRAIN_HOST_DEVICE_INLINE static float step(float gradient, float master, float (&slots)[kSlots],
                                               const Constants& c) {
    const float g = gradient * c.gradient_scale;
    const float decayed = master - c.decay * master;
    const float mean = slots[0] + c.one_minus_beta1 * (g - slots[0]);
    const float sign = (mean > 0.0f ? 1.0f : 0.0f) - (mean < 0.0f ? 1.0f : 0.0f);
    slots[0] = slots[0] + c.one_minus_beta2 * (g - slots[0]);
    return decayed - c.step_size * sign;
  }
};

}  // namespace tptrain::optim
