// Matrices as the copy engine of Hopper is told of them (hopper_product.cuh).
#pragma once

#include <cuda.h>

#include <cstdint>

namespace tptrain::kernels::cuda::hopper {

/// [rows, k] of bf16, rows `distance` elements apart: boxes of 64 of K and `box` rows.
CUtensorMap map_along_rows(const void* data, int64_t rows, int64_t k, int64_t distance, int box);
/// [k, columns]: boxes of 64 of K and `box` columns, 64 columns at a time.
CUtensorMap map_along_columns(const void* data, int64_t k, int64_t columns, int64_t distance,
                              int box);
/// Whether it takes such a matrix.
inline bool begins_at_16_bytes(const void* data, int64_t distance) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && distance % 8 == 0;
}

}  // namespace tptrain::kernels::cuda::hopper
