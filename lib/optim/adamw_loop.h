// The AdamW pass on raw fp32 arrays: every element read and written once. No torch, no threads.
#pragma once

#include <cstdint>

namespace tptrain::optim {

/// Constants of one update, rounded once from double.
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

struct AdamWArrays {
  float* master = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
  const float* gradient = nullptr;
};

/// Updates elements [begin, end).
void adamw_elements(const AdamWArrays& arrays, const AdamWConstants& constants, int64_t begin,
                    int64_t end);

}  // namespace tptrain::optim
