// SwiGLU rows: one exponential an element, forward and backward.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

TPTRAIN_CPU_CLONES
void swiglu_rows(const float* gate_up, float* output, int64_t ffn, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* __restrict gate = gate_up + t * 2 * ffn;
    const float* __restrict up = gate + ffn;
    float* __restrict out = output + t * ffn;
#pragma omp simd
    for (int64_t f = 0; f < ffn; ++f) out[f] = gate[f] / (1.0f + exp_f32(-gate[f])) * up[f];
  }
}

TPTRAIN_CPU_CLONES
void swiglu_backward_rows(const float* grad_output, const float* gate_up, float* grad_gate_up,
                          int64_t ffn, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* __restrict grad = grad_output + t * ffn;
    const float* __restrict gate = gate_up + t * 2 * ffn;
    const float* __restrict up = gate + ffn;
    float* __restrict grad_gate = grad_gate_up + t * 2 * ffn;
    float* __restrict grad_up = grad_gate + ffn;
#pragma omp simd
    for (int64_t f = 0; f < ffn; ++f) {
      const float sigmoid = 1.0f / (1.0f + exp_f32(-gate[f]));
      const float silu = gate[f] * sigmoid;
      grad_gate[f] = grad[f] * up[f] * (sigmoid + silu * (1.0f - sigmoid));
      grad_up[f] = grad[f] * silu;
    }
  }
}

}  // namespace tptrain::kernels::cpu
