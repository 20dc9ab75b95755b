// Casts to FP8 on CUDA memory: plain pointers and sizes, no torch (kernels.h beside this says how
// such interfaces are made). What they compute stands in ../fp8.h.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

/// *amax_bits := the larger of itself and the bits of the largest magnitude of x, as fp32: begin
/// with 0. x: bf16, at 16 bytes, a multiple of 8 elements.
void amax_of(const void* x, int64_t count, uint32_t* amax_bits, Stream stream);

struct Fp8Cast {
  const void* x = nullptr;  // bf16 [rows, columns], columns a multiple of 16
  bool e5m2 = false;        // else e4m3
  /// Where the scale comes from: the bits of the largest magnitude; or null, and then `scale` is
  /// read.
  const uint32_t* amax_bits = nullptr;
  float* scale = nullptr;      // written where amax_bits is given
  void* as_rows = nullptr;     // [rows, columns], or null
  void* as_columns = nullptr;  // [columns, column_length], or null
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t column_length = 0;  // rows or more, a multiple of 16; zeros behind rows
};
void fp8_cast(const Fp8Cast& args, Stream stream);

/// Columns of rows that were cast before.
struct Fp8Turn {
  const void* as_rows = nullptr;  // bytes [rows, columns], at 8 bytes, columns a multiple of 16
  void* as_columns = nullptr;     // [columns, column_length]
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t column_length = 0;  // rows or more, a multiple of 16; zeros behind rows
};
void fp8_turn(const Fp8Turn& args, Stream stream);

}  // namespace tptrain::kernels::cuda
