// Muon's two passes over single elements, before and after a matrix is made orthogonal
// (newton_schulz.h); what joins them is muon.cpp. In either the place of the master or of the slot
// is taken by `work`, in which the direction of the update travels: the passes are then element
// rules like any other, with their loops, kernels and types. Sources: Jordan et al., "Muon: an
// optimizer for hidden layers in neural networks", 2024; Liu et al., "Muon is scalable for LLM
// training", 2025 (section 2.2: the scale that lets AdamW's learning rate and decay serve).
#pragma once

#include "base/host_device.h"
#include "optim/rule_options.h"

namespace tptrain::optim {

/// m = mu m + (1-mu) g;  work = nesterov ? mu m + (1-mu) g : m, with g = gradient * gradient_scale.
struct MuonMomentum {
  static constexpr const char* kName = "muon's momentum";
  static constexpr int kSlots = 1;
  static constexpr const char* kSlotNames[kSlots] = {"momentum_buffer"};

  struct Constants {
    float one_minus_momentum = 0.0f;
    float of_gradient = 0.0f;  // in what is made orthogonal, beside the momentum
    float gradient_scale = 1.0f;
  };

  TPTRAIN_HOST_DEVICE static Constants constants_of(const RuleOptions& options,
                                                    double /*learning_rate*/, double /*update*/,
                                                    float gradient_scale) {
    Constants constants;
    constants.one_minus_momentum = static_cast<float>(1.0 - options.momentum);
    constants.of_gradient = options.nesterov ? constants.one_minus_momentum : 0.0f;
    constants.gradient_scale = gradient_scale;
    return constants;
  }

  TPTRAIN_HOST_DEVICE_INLINE static float step(float gradient, float /*work*/,
                                               float (&slots)[kSlots], const Constants& c) {
    const float g = gradient * c.gradient_scale;
    const float m = slots[0] + c.one_minus_momentum * (g - slots[0]);
    slots[0] = m;
    return m + c.of_gradient * (g - m);
  }
};

/// p -= lr * wd * p;  p -= lr * scale * work, with lr = learning_rate * learning_rate_scale and
/// scale = 0.2 * sqrt(max(rows, columns)): the update's elements are then about as large as
/// AdamW's.
struct MuonStep {
  static constexpr const char* kName = "muon's step";
  static constexpr int kSlots = 1;
  static constexpr const char* kSlotNames[kSlots] = {"work"};

  struct Constants {
    float decay = 0.0f;  // lr * weight_decay
    float step_size = 0.0f;
  };

  TPTRAIN_HOST_DEVICE static Constants constants_of(const RuleOptions& options,
                                                    double step_learning_rate, double /*update*/,
                                                    float /*gradient_scale*/) {
    const double learning_rate = step_learning_rate * options.learning_rate_scale;
    Constants constants;
    constants.decay = static_cast<float>(learning_rate * options.weight_decay);
    constants.step_size = static_cast<float>(learning_rate * options.update_scale);
    return constants;
  }

  TPTRAIN_HOST_DEVICE_INLINE static float step(float /*gradient*/, float master,
                                               float (&slots)[kSlots], const Constants& c) {
    const float decayed = master - c.decay * master;
    return decayed - c.step_size * slots[0];
  }
};

}  // namespace tptrain::optim
