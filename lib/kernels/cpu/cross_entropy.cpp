// Softmax and cross entropy rows on a vocabulary slice, in place.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

constexpr int64_t kIgnored = -100;
constexpr int64_t kColumnsPerPartialSum =
    2048;  // fp32 inside, fp64 across: the row sum of 150,000 terms stays exact to fp32

}  // namespace

TPTRAIN_CPU_CLONES
void row_max_rows(const float* logits, float* row_max, int64_t vocab, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float* __restrict row = logits + t * vocab;
    int32_t best = INT32_MIN;
#pragma omp simd reduction(max : best)
    for (int64_t v = 0; v < vocab; ++v) {
      const int32_t key = ordered_key(row[v]);
      best = key > best ? key : best;
    }
    row_max[t] = value_of_key(best);
  }
}

TPTRAIN_CPU_CLONES
void vocab_exp_rows(const VocabExp& args, int64_t begin, int64_t end) {
  const int64_t vocab = args.vocab;
  for (int64_t t = begin; t < end; ++t) {
    float* __restrict row = args.logits + t * vocab;
    const float maximum = args.row_max[t];
    const int64_t column = args.targets[t] - args.vocab_begin;
    const bool here = args.targets[t] != kIgnored && column >= 0 && column < vocab;
    args.target_logit[t] = here ? row[column] - maximum : 0.0f;
    double total = 0.0;
    for (int64_t first = 0; first < vocab; first += kColumnsPerPartialSum) {
      const int64_t last =
          first + kColumnsPerPartialSum < vocab ? first + kColumnsPerPartialSum : vocab;
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t v = first; v < last; ++v) {
        const float value = exp_f32(row[v] - maximum);
        row[v] = value;
        sum += value;
      }
      total += static_cast<double>(sum);
    }
    args.sum_exp[t] = static_cast<float>(total);
  }
}

TPTRAIN_CPU_CLONES
void vocab_backward_rows(const VocabBackward& args, int64_t begin, int64_t end) {
  const int64_t vocab = args.vocab;
  for (int64_t t = begin; t < end; ++t) {
    float* __restrict row = args.exp + t * vocab;
    if (args.targets[t] == kIgnored) {
      for (int64_t v = 0; v < vocab; ++v) row[v] = 0.0f;
      continue;
    }
    const float factor = args.scale / args.sum_exp[t];
#pragma omp simd
    for (int64_t v = 0; v < vocab; ++v) row[v] *= factor;
    const int64_t column = args.targets[t] - args.vocab_begin;
    if (column >= 0 && column < vocab) row[column] -= args.scale;
  }
}

}  // namespace tptrain::kernels::cpu
