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

}  // namespace

TPTRAIN_CPU_CLONES
void rms_norm_rows(const RmsNormForward& args, int64_t begin, int64_t end) {
  const int64_t hidden = args.hidden;
  const float* __restrict weight = args.weight;
  for (int64_t t = begin; t < end; ++t) {
    const float* __restrict row = args.x + t * hidden;
    float square_sum = 0.0f;
    if (args.delta != nullptr) {
      const float* __restrict delta = args.delta + t * hidden;
      float* __restrict sum = args.sum + t * hidden;
#pragma omp simd reduction(+ : square_sum)
      for (int64_t h = 0; h < hidden; ++h) {
        const float value = row[h] + delta[h];
        sum[h] = value;
        square_sum += value * value;
      }
      row = sum;
    } else {
#pragma omp simd reduction(+ : square_sum)
      for (int64_t h = 0; h < hidden; ++h) square_sum += row[h] * row[h];
    }
    const float inverse = static_cast<float>(
        1.0 / std::sqrt(static_cast<double>(square_sum) / static_cast<double>(hidden) + args.eps));
    args.inverse_rms[t] = inverse;
    float* __restrict output = args.output + t * hidden;
#pragma omp simd
    for (int64_t h = 0; h < hidden; ++h) output[h] = row[h] * inverse * weight[h];
  }
}

TPTRAIN_CPU_CLONES
void rms_norm_backward_rows(const RmsNormBackward& args, float* weight_grad, float* scratch,
                            int64_t begin, int64_t end) {
  const int64_t hidden = args.hidden;
  const float* __restrict weight = args.weight;
  float* __restrict partial = scratch;
  for (int64_t block = begin; block < end; block += kRowsPerPartialSum) {
    const int64_t block_end = block + kRowsPerPartialSum < end ? block + kRowsPerPartialSum : end;
    for (int64_t h = 0; h < hidden; ++h) partial[h] = 0.0f;
    for (int64_t t = block; t < block_end; ++t) {
      const float* __restrict x = args.x + t * hidden;
      const float* __restrict grad = args.grad_output + t * hidden;
      float* __restrict grad_x = args.grad_x + t * hidden;
      const float inverse = args.inverse_rms[t];
      float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
      for (int64_t h = 0; h < hidden; ++h) {
        const float grad_times_x = grad[h] * x[h];
        dot += grad_times_x * weight[h];
        partial[h] += grad_times_x * inverse;
      }
      const float mean = dot * inverse * inverse / static_cast<float>(hidden);
      if (args.grad_sum != nullptr) {
        const float* __restrict grad_sum = args.grad_sum + t * hidden;
#pragma omp simd
        for (int64_t h = 0; h < hidden; ++h)
          grad_x[h] = grad_sum[h] + inverse * (grad[h] * weight[h] - x[h] * mean);
      } else {
#pragma omp simd
        for (int64_t h = 0; h < hidden; ++h)
          grad_x[h] = inverse * (grad[h] * weight[h] - x[h] * mean);
      }
    }
    for (int64_t h = 0; h < hidden; ++h) weight_grad[h] += partial[h];
  }
}

}  // namespace tptrain::kernels::cpu
