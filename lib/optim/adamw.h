// AdamW of one element: decoupled weight decay, bias correction, PyTorch's order of operations. One
// definition for the loop on the CPU and the kernel on CUDA. Source: Loshchilov & Hutter,
// "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2.
#pragma once

#include <cmath>

#include "base/host_device.h"
#include "optim/rule_options.h"

namespace tptrain::optim {

/// Roots and quotients to the last bit. A kernel has its own, of the same bits.
struct Arithmetic {
  TPTRAIN_HOST_DEVICE_INLINE static float root(float x) { return std::sqrt(x); }
  TPTRAIN_HOST_DEVICE_INLINE static float quotient(float a, float b) { return a / b; }
};

/// p -= lr * wd * p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;  p -= lr * (m / (1-b1^t)) /
/// (sqrt(v / (1-b2^t)) + eps), with g = gradient * gradient_scale and lr = learning_rate *
/// learning_rate_scale.
struct AdamW {
  static constexpr const char* kName = "adamw";
  static constexpr int kSlots = 2;
  static constexpr const char* kSlotNames[kSlots] = {"exp_avg", "exp_avg_sq"};

  /// Made of the options, the learning rate and the number of the update in double, rounded once.
  struct Constants {
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
  TPTRAIN_HOST_DEVICE static Constants constants_of(const RuleOptions& options,
                                                    double step_learning_rate, double update,
                                                    float gradient_scale) {
    const double learning_rate = step_learning_rate * options.learning_rate_scale;
    Constants constants;
    constants.decay = static_cast<float>(learning_rate * options.weight_decay);
    constants.beta2 = static_cast<float>(options.beta2);
    constants.one_minus_beta1 = static_cast<float>(1.0 - options.beta1);
    constants.one_minus_beta2 = static_cast<float>(1.0 - options.beta2);
    constants.step_size =
        static_cast<float>(learning_rate / (1.0 - std::pow(options.beta1, update)));
    constants.inverse_correction2 =
        static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(options.beta2, update)));
    constants.eps = static_cast<float>(options.eps);
    constants.gradient_scale = gradient_scale;
    return constants;
  }

  /// The new master; the slots as they shall be stored.
  TPTRAIN_HOST_DEVICE_INLINE static float step(float gradient, float master, float (&slots)[kSlots],
                                               const Constants& c) {
    Arithmetic exact;
    return step_by(exact, gradient, master, slots, c);
  }
  template <typename By>
  TPTRAIN_HOST_DEVICE_INLINE static float step_by(By& by, float gradient, float master,
                                                  float (&slots)[kSlots], const Constants& c) {
    const float g = gradient * c.gradient_scale;
    const float decayed = master - c.decay * master;
    const float m = slots[0] + c.one_minus_beta1 * (g - slots[0]);
    const float v = c.beta2 * slots[1] + c.one_minus_beta2 * g * g;
    slots[0] = m;
    slots[1] = v;
    return decayed - by.quotient(c.step_size * m, by.root(v) * c.inverse_correction2 + c.eps);
  }
};

}  // namespace tptrain::optim
