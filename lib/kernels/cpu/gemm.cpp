// Register-blocked outer products. One micro-kernel as a template over the vector width; the
// compiler makes it for each x86-64 level. Source of the scheme: Goto & van de Geijn, "Anatomy of
// High-Performance Matrix Multiplication", 2008, section 4 (the inner kernel only: the tiles
// already lie in the cache).
#include "kernels/cpu/gemm.h"

#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

namespace {

template <int kLanes>
struct Vector {
  typedef float type
      __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float)), may_alias));
};

/// kRows x (kVectors * kLanes) of c, kept in registers over the whole of k.
template <int kLanes, int kRows, int kVectors>
TPTRAIN_INLINE void tile(const SmallGemm& g, int64_t row, int64_t column, Into into) {
  typedef float Register __attribute__((vector_size(kLanes * sizeof(float))));
  using Memory = typename Vector<kLanes>::type;
  Register sum[kRows][kVectors];
  for (int m = 0; m < kRows; ++m) {
    for (int v = 0; v < kVectors; ++v) {
      if (into == Into::add) {
        sum[m][v] =
            *reinterpret_cast<const Memory*>(g.c + (row + m) * g.c_row + column + v * kLanes);
      } else {
        sum[m][v] = Register{};
      }
    }
  }
  const float* a = g.a + row * g.a_row;
  const float* b = g.b + column;
  for (int64_t k = 0; k < g.k; ++k, a += g.a_column, b += g.b_row) {
    Register right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = *reinterpret_cast<const Memory*>(b + v * kLanes);
    for (int m = 0; m < kRows; ++m) {
      const float left = a[m * g.a_row];
      for (int v = 0; v < kVectors; ++v) sum[m][v] += left * right[v];
    }
  }
  for (int m = 0; m < kRows; ++m) {
    for (int v = 0; v < kVectors; ++v)
      *reinterpret_cast<Memory*>(g.c + (row + m) * g.c_row + column + v * kLanes) = sum[m][v];
  }
}

template <int kLanes, int kVectors>
TPTRAIN_INLINE void column_strip(const SmallGemm& g, int64_t column, Into into) {
  int64_t row = 0;
  if constexpr (kLanes == 16) {  // 32 registers: 8 x 2 sums; with 16 registers (AVX2, SSE) 4 x 2
    for (; row + 8 <= g.m; row += 8) tile<kLanes, 8, kVectors>(g, row, column, into);
  }
  for (; row + 4 <= g.m; row += 4) tile<kLanes, 4, kVectors>(g, row, column, into);
  for (; row < g.m; ++row) tile<kLanes, 1, kVectors>(g, row, column, into);
}

template <int kLanes>
TPTRAIN_INLINE void whole(const SmallGemm& g, Into into) {
  int64_t column = 0;
  for (; column + 2 * kLanes <= g.n; column += 2 * kLanes) column_strip<kLanes, 2>(g, column, into);
  for (; column < g.n; column += kLanes) column_strip<kLanes, 1>(g, column, into);
}

using Function = void (*)(const SmallGemm&, Into);

void gemm_baseline(const SmallGemm& g, Into into) { whole<4>(g, into); }
#ifdef TPTRAIN_CPU_LEVELS
__attribute__((target("arch=x86-64-v3"))) void gemm_v3(const SmallGemm& g, Into into) {
  whole<8>(g, into);
}
__attribute__((target("arch=x86-64-v4"))) void gemm_v4(const SmallGemm& g, Into into) {
  whole<16>(g, into);
}
#endif

Function function_of(VectorLevel level) {
#ifdef TPTRAIN_CPU_LEVELS
  if (level == VectorLevel::v4) return gemm_v4;
  if (level == VectorLevel::v3) return gemm_v3;
#endif
  return gemm_baseline;
}

Function fastest() {
  if (machine_has(VectorLevel::v4)) return function_of(VectorLevel::v4);
  if (machine_has(VectorLevel::v3)) return function_of(VectorLevel::v3);
  return function_of(VectorLevel::baseline);
}

}  // namespace

bool machine_has(VectorLevel level) {
#ifdef TPTRAIN_CPU_LEVELS
  if (level == VectorLevel::v4) return __builtin_cpu_supports("x86-64-v4");
  if (level == VectorLevel::v3) return __builtin_cpu_supports("x86-64-v3");
#endif
  return level == VectorLevel::baseline;
}

void small_gemm(const SmallGemm& gemm, Into into) {
  static const Function function = fastest();
  function(gemm, into);
}

void small_gemm_at(VectorLevel level, const SmallGemm& gemm, Into into) {
  function_of(level)(gemm, into);
}

}  // namespace tptrain::kernels::cpu
