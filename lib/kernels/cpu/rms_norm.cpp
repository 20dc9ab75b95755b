// RMSNorm rows, with and without the residual's addition. The row stays in the first-level cache
// between its two loops.
#include <cmath>

#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

// Rows whose weight gradient is summed in one buffer before it joins the total: keeps the fp32 sum
// over many thousand rows accurate.
constexpr int64_t kRowsPerPartialSum = 64;

/// The one place where the output is made: forward and rms_norm_again agree bit for bit.
template <typename T>
TPTRAIN_INLINE void scale_row(const RmsNormForward<T>& args, const T* __restrict row, int64_t t) {
  const int64_t hidden = args.hidden;
  const T* __restrict weight = args.weight;
  T* __restrict output = args.output + t * hidden;
  const float inverse = args.inverse_rms[t];
#pragma omp simd
  for (int64_t h = 0; h < hidden; ++h)
    output[h] = narrow<T>(widen(row[h]) * inverse * widen(weight[h]));
}

template <typename T>
TPTRAIN_INLINE void norm(const RmsNormForward<T>& args, int64_t begin, int64_t end) {
  const int64_t hidden = args.hidden;
  for (int64_t t = begin; t < end; ++t) {
    const T* __restrict row = args.x + t * hidden;
    float square_sum = 0.0f;
    if (args.delta != nullptr) {
      const T* __restrict delta = args.delta + t * hidden;
      T* __restrict sum = args.sum + t * hidden;
#pragma omp simd reduction(+ : square_sum)
      for (int64_t h = 0; h < hidden; ++h) {
        const float value = as_stored<T>(widen(row[h]) + widen(delta[h]));
        sum[h] = narrow<T>(value);
        square_sum += value * value;
      }
      row = sum;
    } else {
#pragma omp simd reduction(+ : square_sum)
      for (int64_t h = 0; h < hidden; ++h) square_sum += widen(row[h]) * widen(row[h]);
    }
    args.inverse_rms[t] = static_cast<float>(
        1.0 / std::sqrt(static_cast<double>(square_sum) / static_cast<double>(hidden) + args.eps));
    scale_row(args, row, t);
  }
}

template <typename T>
TPTRAIN_INLINE void norm_again(const RmsNormForward<T>& args, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) scale_row(args, args.x + t * args.hidden, t);
}

template <typename T>
TPTRAIN_INLINE void norm_backward(const RmsNormBackward<T>& args, float* weight_grad,
                                  float* scratch, int64_t begin, int64_t end) {
  const int64_t hidden = args.hidden;
  const T* __restrict weight = args.weight;
  float* __restrict partial = scratch;
  for (int64_t block = begin; block < end; block += kRowsPerPartialSum) {
    const int64_t block_end = block + kRowsPerPartialSum < end ? block + kRowsPerPartialSum : end;
    for (int64_t h = 0; h < hidden; ++h) partial[h] = 0.0f;
    for (int64_t t = block; t < block_end; ++t) {
      const T* __restrict x = args.x + t * hidden;
      const T* __restrict grad = args.grad_output + t * hidden;
      T* __restrict grad_x = args.grad_x + t * hidden;
      const float inverse = args.inverse_rms[t];
      float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
      for (int64_t h = 0; h < hidden; ++h) {
        const float grad_times_x = widen(grad[h]) * widen(x[h]);
        dot += grad_times_x * widen(weight[h]);
        partial[h] += grad_times_x * inverse;
      }
      const float mean = dot * inverse * inverse / static_cast<float>(hidden);
      if (args.grad_sum != nullptr) {
        const T* __restrict grad_sum = args.grad_sum + t * hidden;
#pragma omp simd
        for (int64_t h = 0; h < hidden; ++h)
          grad_x[h] = narrow<T>(widen(grad_sum[h]) +
                                inverse * (widen(grad[h]) * widen(weight[h]) - widen(x[h]) * mean));
      } else {
#pragma omp simd
        for (int64_t h = 0; h < hidden; ++h)
          grad_x[h] = narrow<T>(inverse * (widen(grad[h]) * widen(weight[h]) - widen(x[h]) * mean));
      }
    }
    for (int64_t h = 0; h < hidden; ++h) weight_grad[h] += partial[h];
  }
}

}  // namespace

TPTRAIN_CPU_CLONES
void rms_norm_rows(const RmsNormForward<float>& args, int64_t begin, int64_t end) {
  norm(args, begin, end);
}
TPTRAIN_CPU_CLONES
void rms_norm_rows(const RmsNormForward<Bf16>& args, int64_t begin, int64_t end) {
  norm(args, begin, end);
}

TPTRAIN_CPU_CLONES
void rms_norm_again_rows(const RmsNormForward<float>& args, int64_t begin, int64_t end) {
  norm_again(args, begin, end);
}
TPTRAIN_CPU_CLONES
void rms_norm_again_rows(const RmsNormForward<Bf16>& args, int64_t begin, int64_t end) {
  norm_again(args, begin, end);
}

TPTRAIN_CPU_CLONES
void rms_norm_backward_rows(const RmsNormBackward<float>& args, float* weight_grad, float* scratch,
                            int64_t begin, int64_t end) {
  norm_backward(args, weight_grad, scratch, begin, end);
}
TPTRAIN_CPU_CLONES
void rms_norm_backward_rows(const RmsNormBackward<Bf16>& args, float* weight_grad, float* scratch,
                            int64_t begin, int64_t end) {
  norm_backward(args, weight_grad, scratch, begin, end);
}

}  // namespace tptrain::kernels::cpu
