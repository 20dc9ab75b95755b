// SwiGLU of one element, for the kernels that read it from memory and those that have it in
// registers: the same operations, the same bits.
#pragma once

#include "kernels/cuda/device.cuh"

namespace tptrain::kernels::cuda {

template <typename T>
__device__ inline float sigmoid(float x) {
  return quotient<T>(1.0f, 1.0f + exponential<T>(-x));
}

template <typename T>
__device__ inline float swiglu_of(float gate, float up) {
  return gate * (sigmoid<T>(gate) * up);
}

/// gate and up become the gradients of themselves.
template <typename T>
__device__ inline void swiglu_gradient(float grad, float& gate, float& up) {
  const float s = sigmoid<T>(gate);
  const float silu = gate * s;
  const float grad_up = grad * silu;
  gate = grad * up * (s + silu * (1.0f - s));
  up = grad_up;
}

}  // namespace tptrain::kernels::cuda
