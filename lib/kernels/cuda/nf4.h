// NF4 on CUDA memory (../nf4.h): plain pointers and sizes.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

struct Nf4 {
  float values[16] = {};  // kNf4Values
  const uint8_t* codes = nullptr;
  const uint8_t* scales = nullptr;
  const float* groups = nullptr;
  const float* map = nullptr;  // [256] dynamic_map()
  float offset = 0;
  int64_t first = 0, run = 0, stride = 0;  // Nf4Blocks
  int64_t elements = 0;
};
/// codes 4-byte aligned.
void nf4_values(const Nf4& matrix, Element element, void* out, Stream stream);

}  // namespace tptrain::kernels::cuda
