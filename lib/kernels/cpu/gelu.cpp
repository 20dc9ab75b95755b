// GELU elements, tanh form: 1/2 (1 + tanh u) is the sigmoid of 2 u, one exponential an element.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

constexpr float kTwice = 1.59576912160573f;  // 2 sqrt(2 / pi)
constexpr float kCubic = 0.044715f;

template <typename T>
TPTRAIN_INLINE void forward(const T* __restrict x, T* __restrict output, int64_t begin,
                            int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float value = widen(x[i]);
    const float twice_u = kTwice * value * (1.0f + kCubic * value * value);
    output[i] = narrow<T>(value / (1.0f + exp_f32(-twice_u)));
  }
}

template <typename T>
TPTRAIN_INLINE void backward(const T* __restrict grad_output, const T* __restrict x,
                             T* __restrict grad_x, int64_t begin, int64_t end) {
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float value = widen(x[i]);
    const float square = value * value;
    const float sigmoid = 1.0f / (1.0f + exp_f32(-kTwice * value * (1.0f + kCubic * square)));
    const float slope = kTwice * (1.0f + 3.0f * kCubic * square);  // of 2 u
    grad_x[i] =
        narrow<T>(widen(grad_output[i]) * (sigmoid + value * (sigmoid * (1.0f - sigmoid)) * slope));
  }
}

}  // namespace

TPTRAIN_CPU_CLONES
void gelu_elements(const float* x, float* output, int64_t begin, int64_t end) {
  forward(x, output, begin, end);
}
TPTRAIN_CPU_CLONES
void gelu_elements(const Bf16* x, Bf16* output, int64_t begin, int64_t end) {
  forward(x, output, begin, end);
}

TPTRAIN_CPU_CLONES
void gelu_backward_elements(const float* grad_output, const float* x, float* grad_x, int64_t begin,
                            int64_t end) {
  backward(grad_output, x, grad_x, begin, end);
}
TPTRAIN_CPU_CLONES
void gelu_backward_elements(const Bf16* grad_output, const Bf16* x, Bf16* grad_x, int64_t begin,
                            int64_t end) {
  backward(grad_output, x, grad_x, begin, end);
}

}  // namespace tptrain::kernels::cpu
