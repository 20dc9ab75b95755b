// The floating-point types of weights <-> fp32, on raw bytes of any alignment. Exact in the
// direction of fp32, NaN payloads included, but of f64; rounded to nearest, ties to even, in the
// other. What came from bf16 or f16 goes back to the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/dtype.h"

namespace tptrain::formats {

/// f32, bf16 and f16: what weights are stored as.
bool is_weight_dtype(Dtype dtype);
/// These and f64, which some tools write: it is rounded to fp32 when it is read.
bool is_readable_dtype(Dtype dtype);

/// `from` holds `count` elements. Throws InternalError where the type cannot be read.
void to_float32(Dtype dtype, const std::byte* from, float* to, int64_t count);
/// `to` has room for `count` elements. A NaN stays a NaN; what is too large becomes infinite.
/// Throws like the above.
void from_float32(Dtype dtype, const float* from, std::byte* to, int64_t count);

}  // namespace tptrain::formats
