// Rotary embedding in place, one position's angles for all its sequences and heads.
#include "kernels/cpu/loops.h"
#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

template <typename T>
TPTRAIN_INLINE void rotate(const Rotary<T>& args, int64_t begin, int64_t end) {
  const int64_t half = args.head_dim / 2;
  for (int64_t s = begin; s < end; ++s) {
    const float* cos = args.cos + s * half;
    const float* sin = args.sin + s * half;
    for (int64_t b = 0; b < args.batch; ++b) {
      T* token = args.packed + (s * args.batch + b) * args.width;
      for (int64_t head = 0; head < args.heads; ++head) {
        T* first = token + head * args.head_dim;
        T* second = first + half;
#pragma omp simd
        for (int64_t d = 0; d < half; ++d) {
          const float a = widen(first[d]);
          const float c = widen(second[d]);
          const float sine = args.sign * sin[d];
          first[d] = narrow<T>(a * cos[d] - c * sine);
          second[d] = narrow<T>(c * cos[d] + a * sine);
        }
      }
    }
  }
}

}  // namespace

TPTRAIN_CPU_CLONES
void rotary_positions(const Rotary<float>& args, int64_t begin, int64_t end) {
  rotate(args, begin, end);
}
TPTRAIN_CPU_CLONES
void rotary_positions(const Rotary<Bf16>& args, int64_t begin, int64_t end) {
  rotate(args, begin, end);
}

}  // namespace tptrain::kernels::cpu
