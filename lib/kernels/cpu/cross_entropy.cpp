// Softmax and cross entropy rows on a vocabulary slice, in place.
#include <cmath>
#include <type_traits>

#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

constexpr int64_t kIgnored = -100;
constexpr int64_t kColumnsPerPartialSum =
    2048;  // fp32 inside, fp64 across: the row sum of 150,000 terms stays exact to fp32

template <typename T>
TPTRAIN_INLINE void maxima(const T* logits, float* row_max, int64_t vocab, int64_t begin,
                           int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const T* __restrict row = logits + t * vocab;
    int32_t best = INT32_MIN;
#pragma omp simd reduction(max : best)
    for (int64_t v = 0; v < vocab; ++v) {
      const int32_t key = ordered_key(widen(row[v]));
      best = key > best ? key : best;
    }
    row_max[t] = value_of_key(best);
  }
}

template <typename T>
TPTRAIN_INLINE void exponentials(const VocabExp<T>& args, int64_t begin, int64_t end) {
  const int64_t vocab = args.vocab;
  for (int64_t t = begin; t < end; ++t) {
    T* __restrict row = args.logits + t * vocab;
    const float maximum = args.row_max[t];
    const int64_t column = args.targets[t] - args.vocab_begin;
    const bool here = args.targets[t] != kIgnored && column >= 0 && column < vocab;
    args.target_logit[t] = here ? widen(row[column]) - maximum : 0.0f;
    double total = 0.0;
    for (int64_t first = 0; first < vocab; first += kColumnsPerPartialSum) {
      const int64_t last =
          first + kColumnsPerPartialSum < vocab ? first + kColumnsPerPartialSum : vocab;
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t v = first; v < last; ++v) {
        const float value = exp_f32(widen(row[v]) - maximum);
        row[v] = narrow<T>(value);
        sum += value;
      }
      total += static_cast<double>(sum);
    }
    args.sum_exp[t] = static_cast<float>(total);
  }
}

template <typename T>
TPTRAIN_INLINE void softmax_backward(const VocabBackward<T>& args, int64_t begin, int64_t end) {
  const int64_t vocab = args.vocab;
  for (int64_t t = begin; t < end; ++t) {
    T* __restrict row = args.exp + t * vocab;
    if (args.targets[t] == kIgnored) {
      for (int64_t v = 0; v < vocab; ++v) row[v] = narrow<T>(0.0f);
      continue;
    }
    float factor = args.scale / args.sum_exp[t];
    if (args.z_loss != 0.0f)
      factor *= 1.0f + 2.0f * args.z_loss * (args.row_max[t] + std::log(args.sum_exp[t]));
#pragma omp simd
    for (int64_t v = 0; v < vocab; ++v) row[v] = narrow<T>(widen(row[v]) * factor);
    const int64_t column = args.targets[t] - args.vocab_begin;
    if (column < 0 || column >= vocab) continue;
    if constexpr (std::is_same_v<T, float>) {
      row[column] -= args.scale;
    } else {
      // Of a well predicted token both terms are near `scale`: their difference must not be taken
      // between rounded numbers.
      row[column] = narrow<T>(exp_f32(args.target_logit[t]) * factor - args.scale);
    }
  }
}

}  // namespace

TPTRAIN_CPU_CLONES
void row_max_rows(const float* logits, float* row_max, int64_t vocab, int64_t begin, int64_t end) {
  maxima(logits, row_max, vocab, begin, end);
}
TPTRAIN_CPU_CLONES
void row_max_rows(const Bf16* logits, float* row_max, int64_t vocab, int64_t begin, int64_t end) {
  maxima(logits, row_max, vocab, begin, end);
}

TPTRAIN_CPU_CLONES
void vocab_exp_rows(const VocabExp<float>& args, int64_t begin, int64_t end) {
  exponentials(args, begin, end);
}
TPTRAIN_CPU_CLONES
void vocab_exp_rows(const VocabExp<Bf16>& args, int64_t begin, int64_t end) {
  exponentials(args, begin, end);
}

TPTRAIN_CPU_CLONES
void vocab_backward_rows(const VocabBackward<float>& args, int64_t begin, int64_t end) {
  softmax_backward(args, begin, end);
}
TPTRAIN_CPU_CLONES
void vocab_backward_rows(const VocabBackward<Bf16>& args, int64_t begin, int64_t end) {
  softmax_backward(args, begin, end);
}

}  // namespace tptrain::kernels::cpu
