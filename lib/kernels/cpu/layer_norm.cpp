// LayerNorm rows, with and without the residual's addition. The row stays in the first-level cache
// between its loops: the variance is of the differences from the mean, not of the squares, which
// would cancel.
#include <cmath>

#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

// As in rms_norm.cpp: keeps the fp32 sums of the weights' gradients accurate.
constexpr int64_t kRowsPerPartialSum = 64;

/// The one place where the output is made: forward and layer_norm_again agree bit for bit.
template <typename T>
TPTRAIN_INLINE void scale_row(const LayerNormForward<T>& args, const T* __restrict row, int64_t t) {
  const int64_t hidden = args.hidden;
  const T* __restrict weight = args.weight;
  const T* __restrict bias = args.bias;
  T* __restrict output = args.output + t * hidden;
  const float mean = args.mean[t];
  const float inverse = args.inverse_std[t];
#pragma omp simd
  for (int64_t h = 0; h < hidden; ++h)
    output[h] = narrow<T>((widen(row[h]) - mean) * inverse * widen(weight[h]) + widen(bias[h]));
}

template <typename T>
TPTRAIN_INLINE void norm(const LayerNormForward<T>& args, int64_t begin, int64_t end) {
  const int64_t hidden = args.hidden;
  for (int64_t t = begin; t < end; ++t) {
    const T* __restrict row = args.x + t * hidden;
    float total = 0.0f;
    if (args.delta != nullptr) {
      const T* __restrict delta = args.delta + t * hidden;
      T* __restrict sum = args.sum + t * hidden;
#pragma omp simd reduction(+ : total)
      for (int64_t h = 0; h < hidden; ++h) {
        const float value = as_stored<T>(widen(row[h]) + widen(delta[h]));
        sum[h] = narrow<T>(value);
        total += value;
      }
      row = sum;
    } else {
#pragma omp simd reduction(+ : total)
      for (int64_t h = 0; h < hidden; ++h) total += widen(row[h]);
    }
    const float mean = total / static_cast<float>(hidden);
    float square_sum = 0.0f;
#pragma omp simd reduction(+ : square_sum)
    for (int64_t h = 0; h < hidden; ++h) {
      const float difference = widen(row[h]) - mean;
      square_sum += difference * difference;
    }
    args.mean[t] = mean;
    args.inverse_std[t] = static_cast<float>(
        1.0 / std::sqrt(static_cast<double>(square_sum) / static_cast<double>(hidden) + args.eps));
    scale_row(args, row, t);
  }
}

template <typename T>
TPTRAIN_INLINE void norm_again(const LayerNormForward<T>& args, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) scale_row(args, args.x + t * args.hidden, t);
}

template <typename T>
TPTRAIN_INLINE void norm_backward(const LayerNormBackward<T>& args, float* gradients,
                                  float* scratch, int64_t begin, int64_t end) {
  const int64_t hidden = args.hidden;
  const T* __restrict weight = args.weight;
  float* __restrict partial_weight = scratch;
  float* __restrict partial_bias = scratch + hidden;
  for (int64_t block = begin; block < end; block += kRowsPerPartialSum) {
    const int64_t block_end = block + kRowsPerPartialSum < end ? block + kRowsPerPartialSum : end;
    for (int64_t i = 0; i < 2 * hidden; ++i) scratch[i] = 0.0f;
    for (int64_t t = block; t < block_end; ++t) {
      const T* __restrict x = args.x + t * hidden;
      const T* __restrict grad = args.grad_output + t * hidden;
      T* __restrict grad_x = args.grad_x + t * hidden;
      const float mean = args.mean[t];
      const float inverse = args.inverse_std[t];
      float sum = 0.0f;  // of the gradient of the normed row, and of its product with that row
      float dot = 0.0f;
#pragma omp simd reduction(+ : sum, dot)
      for (int64_t h = 0; h < hidden; ++h) {
        const float normed = (widen(x[h]) - mean) * inverse;
        const float scaled = widen(grad[h]) * widen(weight[h]);
        sum += scaled;
        dot += scaled * normed;
        partial_weight[h] += widen(grad[h]) * normed;
        partial_bias[h] += widen(grad[h]);
      }
      const float mean_grad = sum / static_cast<float>(hidden);
      const float mean_dot = dot / static_cast<float>(hidden);
      if (args.grad_sum != nullptr) {
        const T* __restrict grad_sum = args.grad_sum + t * hidden;
#pragma omp simd
        for (int64_t h = 0; h < hidden; ++h) {
          const float normed = (widen(x[h]) - mean) * inverse;
          grad_x[h] = narrow<T>(widen(grad_sum[h]) + inverse * (widen(grad[h]) * widen(weight[h]) -
                                                                mean_grad - normed * mean_dot));
        }
      } else {
#pragma omp simd
        for (int64_t h = 0; h < hidden; ++h) {
          const float normed = (widen(x[h]) - mean) * inverse;
          grad_x[h] = narrow<T>(
              inverse * (widen(grad[h]) * widen(weight[h]) - mean_grad - normed * mean_dot));
        }
      }
    }
    for (int64_t i = 0; i < 2 * hidden; ++i) gradients[i] += scratch[i];
  }
}

}  // namespace

TPTRAIN_CPU_CLONES
void layer_norm_rows(const LayerNormForward<float>& args, int64_t begin, int64_t end) {
  norm(args, begin, end);
}
TPTRAIN_CPU_CLONES
void layer_norm_rows(const LayerNormForward<Bf16>& args, int64_t begin, int64_t end) {
  norm(args, begin, end);
}

TPTRAIN_CPU_CLONES
void layer_norm_again_rows(const LayerNormForward<float>& args, int64_t begin, int64_t end) {
  norm_again(args, begin, end);
}
TPTRAIN_CPU_CLONES
void layer_norm_again_rows(const LayerNormForward<Bf16>& args, int64_t begin, int64_t end) {
  norm_again(args, begin, end);
}

TPTRAIN_CPU_CLONES
void layer_norm_backward_rows(const LayerNormBackward<float>& args, float* gradients,
                              float* scratch, int64_t begin, int64_t end) {
  norm_backward(args, gradients, scratch, begin, end);
}
TPTRAIN_CPU_CLONES
void layer_norm_backward_rows(const LayerNormBackward<Bf16>& args, float* gradients, float* scratch,
                              int64_t begin, int64_t end) {
  norm_backward(args, gradients, scratch, begin, end);
}

}  // namespace tptrain::kernels::cpu
