// The largest magnitude of many numbers, which decides the scale of their cast to FP8.
#pragma once

#include <cstdint>

#include "kernels/cpu/vector.h"

namespace tptrain::kernels::cpu {

/// That of x[0, count) as it is when rounded to bf16, as the bits of an fp32: those of NaN are
/// above infinity's.
uint32_t largest_magnitude(const float* x, int64_t count);
uint32_t largest_magnitude(const Bf16* x, int64_t count);

}  // namespace tptrain::kernels::cpu
