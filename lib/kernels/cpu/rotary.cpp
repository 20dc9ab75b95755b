// Rotary embedding in place, one position's angles for all its sequences and heads.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

TPTRAIN_CPU_CLONES
void rotary_positions(const Rotary& args, int64_t begin, int64_t end) {
  const int64_t half = args.head_dim / 2;
  for (int64_t s = begin; s < end; ++s) {
    const float* cos = args.cos + s * half;
    const float* sin = args.sin + s * half;
    for (int64_t b = 0; b < args.batch; ++b) {
      float* token = args.packed + (s * args.batch + b) * args.width;
      for (int64_t head = 0; head < args.heads; ++head) {
        float* first = token + head * args.head_dim;
        float* second = first + half;
#pragma omp simd
        for (int64_t d = 0; d < half; ++d) {
          const float a = first[d];
          const float c = second[d];
          const float sine = args.sign * sin[d];
          first[d] = a * cos[d] - c * sine;
          second[d] = c * cos[d] + a * sine;
        }
      }
    }
  }
}

}  // namespace tptrain::kernels::cpu
