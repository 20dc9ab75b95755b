// Small matrix products inside fused kernels: tiles of a few dozen rows and columns, where a call
// of the BLAS library costs more than the product. Not for the layers' GEMMs: those go to ATen. No
// torch, no threads.
#pragma once

#include <cstdint>

namespace tptrain::kernels::cpu {

constexpr int64_t kGemmColumns = 16;  // columns come in multiples of this; pad with zeros
inline int64_t padded(int64_t count) {
  return (count + kGemmColumns - 1) / kGemmColumns * kGemmColumns;
}

struct SmallGemm {
  const float* a = nullptr;  // element (m, k) at a[m * a_row + k * a_column]: either transposition
  int64_t a_row = 0;
  int64_t a_column = 1;
  const float* b = nullptr;  // [k, n] row-major
  int64_t b_row = 0;
  float* c = nullptr;  // [m, n] row-major
  int64_t c_row = 0;
  int64_t m = 0;
  int64_t n = 0;  // multiple of kGemmColumns
  int64_t k = 0;
};
enum class Into { overwrite, add };

/// c = a b, or c += a b, with the widest vectors of this machine.
void small_gemm(const SmallGemm& gemm, Into into);

/// The code paths by themselves, for the tests of those that a machine would not choose: baseline,
/// AVX2 (x86-64-v3), AVX-512 (x86-64-v4).
enum class VectorLevel { baseline, v3, v4 };
bool machine_has(VectorLevel level);
void small_gemm_at(VectorLevel level, const SmallGemm& gemm, Into into);

}  // namespace tptrain::kernels::cpu
