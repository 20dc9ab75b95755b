// SwiGLU rows: one exponential an element, forward and backward.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

template <typename T>
TPTRAIN_INLINE void forward(const T* gate_up, T* output, int64_t ffn, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const T* __restrict gate = gate_up + t * 2 * ffn;
    const T* __restrict up = gate + ffn;
    T* __restrict out = output + t * ffn;
#pragma omp simd
    for (int64_t f = 0; f < ffn; ++f) {
      const float g = widen(gate[f]);
      out[f] = narrow<T>(g / (1.0f + exp_f32(-g)) * widen(up[f]));
    }
  }
}

template <typename T>
TPTRAIN_INLINE void backward(const T* grad_output, const T* gate_up, T* grad_gate_up, int64_t ffn,
                             int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const T* __restrict grad = grad_output + t * ffn;
    const T* __restrict gate = gate_up + t * 2 * ffn;
    const T* __restrict up = gate + ffn;
    T* __restrict grad_gate = grad_gate_up + t * 2 * ffn;
    T* __restrict grad_up = grad_gate + ffn;
#pragma omp simd
    for (int64_t f = 0; f < ffn; ++f) {
      const float g = widen(gate[f]);
      const float dy = widen(grad[f]);
      const float sigmoid = 1.0f / (1.0f + exp_f32(-g));
      const float silu = g * sigmoid;
      grad_gate[f] = narrow<T>(dy * widen(up[f]) * (sigmoid + silu * (1.0f - sigmoid)));
      grad_up[f] = narrow<T>(dy * silu);
    }
  }
}

}  // namespace

TPTRAIN_CPU_CLONES
void swiglu_rows(const float* gate_up, float* output, int64_t ffn, int64_t begin, int64_t end) {
  forward(gate_up, output, ffn, begin, end);
}
TPTRAIN_CPU_CLONES
void swiglu_rows(const Bf16* gate_up, Bf16* output, int64_t ffn, int64_t begin, int64_t end) {
  forward(gate_up, output, ffn, begin, end);
}

TPTRAIN_CPU_CLONES
void swiglu_backward_rows(const float* grad_output, const float* gate_up, float* grad_gate_up,
                          int64_t ffn, int64_t begin, int64_t end) {
  backward(grad_output, gate_up, grad_gate_up, ffn, begin, end);
}
TPTRAIN_CPU_CLONES
void swiglu_backward_rows(const Bf16* grad_output, const Bf16* gate_up, Bf16* grad_gate_up,
                          int64_t ffn, int64_t begin, int64_t end) {
  backward(grad_output, gate_up, grad_gate_up, ffn, begin, end);
}

}  // namespace tptrain::kernels::cpu
