// RMSNorm of each head of q and k, in place on packed tokens. Backward makes the inverse of a
// head's root mean square again: a row of head_dim elements is read twice from the first-level
// cache, and nothing is kept.
#include <cmath>

#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

// Rows whose gradients are summed in one buffer before they join the total, as in rms_norm.cpp.
constexpr int64_t kRowsPerPartialSum = 64;

template <typename T>
TPTRAIN_INLINE float inverse_rms(const T* __restrict row, int64_t head_dim, double eps) {
  float square_sum = 0.0f;
#pragma omp simd reduction(+ : square_sum)
  for (int64_t d = 0; d < head_dim; ++d) square_sum += widen(row[d]) * widen(row[d]);
  return static_cast<float>(
      1.0 / std::sqrt(static_cast<double>(square_sum) / static_cast<double>(head_dim) + eps));
}

template <typename T>
TPTRAIN_INLINE void norm(const HeadNorm<T>& args, int64_t begin, int64_t end) {
  const int64_t head_dim = args.head_dim;
  const int64_t heads = args.q_heads + args.k_heads;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t head = 0; head < heads; ++head) {
      T* row = args.packed + t * args.width + head * head_dim;
      const T* __restrict weight = head < args.q_heads ? args.q_weight : args.k_weight;
      const float inverse = inverse_rms(row, head_dim, args.eps);
#pragma omp simd
      for (int64_t d = 0; d < head_dim; ++d)
        row[d] = narrow<T>(widen(row[d]) * inverse * widen(weight[d]));
    }
  }
}

template <typename T>
TPTRAIN_INLINE void norm_backward(const HeadNorm<T>& args, float* gradients, float* scratch,
                                  int64_t begin, int64_t end) {
  const int64_t head_dim = args.head_dim;
  const int64_t heads = args.q_heads + args.k_heads;
  const int64_t tokens = kRowsPerPartialSum / heads > 1 ? kRowsPerPartialSum / heads : 1;
  for (int64_t block = begin; block < end; block += tokens) {
    const int64_t block_end = block + tokens < end ? block + tokens : end;
    for (int64_t i = 0; i < 2 * head_dim; ++i) scratch[i] = 0.0f;
    for (int64_t t = block; t < block_end; ++t) {
      for (int64_t head = 0; head < heads; ++head) {
        const bool is_q = head < args.q_heads;
        const T* __restrict weight = is_q ? args.q_weight : args.k_weight;
        float* __restrict partial = is_q ? scratch : scratch + head_dim;
        const T* __restrict x = args.input + (t * heads + head) * head_dim;
        T* __restrict grad = args.packed + t * args.width + head * head_dim;
        const float inverse = inverse_rms(x, head_dim, args.eps);
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t d = 0; d < head_dim; ++d) {
          const float grad_times_x = widen(grad[d]) * widen(x[d]);
          dot += grad_times_x * widen(weight[d]);
          partial[d] += grad_times_x * inverse;
        }
        const float mean = dot * inverse * inverse / static_cast<float>(head_dim);
#pragma omp simd
        for (int64_t d = 0; d < head_dim; ++d)
          grad[d] = narrow<T>(inverse * (widen(grad[d]) * widen(weight[d]) - widen(x[d]) * mean));
      }
    }
    for (int64_t i = 0; i < 2 * head_dim; ++i) gradients[i] += scratch[i];
  }
}

}  // namespace

TPTRAIN_CPU_CLONES
void head_norm_tokens(const HeadNorm<float>& args, int64_t begin, int64_t end) {
  norm(args, begin, end);
}
TPTRAIN_CPU_CLONES
void head_norm_tokens(const HeadNorm<Bf16>& args, int64_t begin, int64_t end) {
  norm(args, begin, end);
}

TPTRAIN_CPU_CLONES
void head_norm_backward_tokens(const HeadNorm<float>& args, float* gradients, float* scratch,
                               int64_t begin, int64_t end) {
  norm_backward(args, gradients, scratch, begin, end);
}
TPTRAIN_CPU_CLONES
void head_norm_backward_tokens(const HeadNorm<Bf16>& args, float* gradients, float* scratch,
                               int64_t begin, int64_t end) {
  norm_backward(args, gradients, scratch, begin, end);
}

}  // namespace tptrain::kernels::cpu
