// A weight's gradient in fp32 and the sums of squares of what it writes, by one kernel for Hopper:
// the norm needs no pass over such a gradient. Plain pointers and sizes; which call takes it is
// decided in ../weight_gradient.cpp. In a build without CUDA (absent.cpp) nothing of it is called.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

/// grad [out, in] = dy^T x of dy [tokens, out] and x [tokens, in], bf16, rows `dy_distance` and
/// `x_distance` elements apart.
struct WeightGradient {
  float* grad = nullptr;
  const void* dy = nullptr;
  const void* x = nullptr;
  int64_t tokens = 0;
  int64_t out = 0;
  int64_t in = 0;
  int64_t dy_distance = 0;
  int64_t x_distance = 0;
  double* squares = nullptr;  // [squares_of_gradient(out, in)], each of a piece of grad
};

/// How many sums such a gradient has; 0: the kernel's tiles do not cover it, or the current device
/// is not of capability 9.0.
int64_t squares_of_gradient(int64_t out, int64_t in);
/// Whether its tiles keep the current device busy: else cuBLAS' smaller ones are the faster way.
bool fills_device_with_gradient(int64_t out, int64_t in);
/// Whether the kernel multiplies such operands: there are such sums, and rows begin at 16 bytes.
bool takes_weight_gradient(const WeightGradient& args);
void weight_gradient(const WeightGradient& args, Stream stream);

}  // namespace tptrain::kernels::cuda
