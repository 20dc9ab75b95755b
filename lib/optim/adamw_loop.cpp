#include "optim/adamw_loop.h"

#include <cmath>

#include "kernels/cpu/vector.h"

namespace tptrain::optim {

TPTRAIN_CPU_CLONES
void adamw_elements(const AdamWArrays& arrays, const AdamWConstants& constants, int64_t begin,
                    int64_t end) {
  float* __restrict master = arrays.master;
  float* __restrict exp_avg = arrays.exp_avg;
  float* __restrict exp_avg_sq = arrays.exp_avg_sq;
  const float* __restrict gradient = arrays.gradient;
  const AdamWConstants c = constants;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = gradient[i] * c.gradient_scale;
    const float decayed = master[i] - c.decay * master[i];
    const float m = exp_avg[i] + c.one_minus_beta1 * (g - exp_avg[i]);
    const float v = c.beta2 * exp_avg_sq[i] + c.one_minus_beta2 * g * g;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    master[i] = decayed - c.step_size * m / (std::sqrt(v) * c.inverse_correction2 + c.eps);
  }
}

}  // namespace tptrain::optim
