// FP8: matrices of 8-bit floats that share one scale, and their products. Per-tensor current
// scaling: the scale comes from the largest magnitude of the very tensor that is cast, so that
// nothing is remembered from step to step. Scales are powers of two: casting then rounds the same
// mantissas whatever the largest magnitude is, and numbers depend on it (on the layout, therefore)
// only through what is too small for the type. Source: Micikevicius et al., "FP8 Formats for Deep
// Learning", 2022.
//
//   type   largest   smallest normal   for
//   e4m3   448       2^-6              activations and weights
//   e5m2   57,344    2^-14             gradients
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/kernels.h"

namespace tptrain::kernels {

enum class Fp8 { e4m3, e5m2 };

/// The inner size of a product must be a multiple of this.
inline constexpr int64_t kFp8Multiple = 16;

/// A matrix [R, C] as FP8: as its rows, as its columns (the rows of its transpose), or as both;
/// what was not asked for is undefined. GPUs multiply rows by rows: a product needs either form of
/// its operands at one place or another.
struct Fp8Matrix {
  at::Tensor rows;     // [R, C] of at::kFloat8_e4m3fn or at::kFloat8_e5m2
  at::Tensor columns;  // [C, R] likewise
  /// fp32 [1], on the device of the matrix: a value is what is stored times this. NaN where the
  /// matrix holds something that is not finite, so that no product hides it.
  at::Tensor scale;
  /// Of a matrix that is yet to be cast: its largest magnitude, where its producer found it
  /// (fp8_amax); else undefined.
  at::Tensor amax = {};
};
enum class Fp8Form { rows, columns, both };

/// Words of a tensor whose first holds a largest magnitude: what GPUs exchange directly is a
/// multiple of 16 bytes.
inline constexpr int64_t kFp8AmaxWords = 4;
/// Where whoever makes a tensor like this leaves its largest magnitude: int32 [kFp8AmaxWords], the
/// bits of an fp32, 0 to begin with. Undefined where casts find it themselves (not on CUDA).
at::Tensor fp8_amax(const at::Tensor& like);
/// The scales [k], fp32, that casts of these largest magnitudes [k] take.
at::Tensor fp8_scales(const at::Tensor& amax, Fp8 type);
/// x [R, C] bf16, contiguous, C a multiple of 16 -> FP8, rounded to nearest even. `scale`: of the
/// same values, where it is known from an earlier cast; undefined: from their largest magnitude,
/// which is `amax` where that is defined.
Fp8Matrix to_fp8(const at::Tensor& x, Fp8 type, Fp8Form form, const at::Tensor& scale = {},
                 const at::Tensor& amax = {});
/// The same into the memory of `to`, which an earlier cast of the same sizes, type and form made.
void to_fp8_out(Fp8Matrix& to, const at::Tensor& x, Fp8 type, const at::Tensor& amax = {});
/// Raises amax (its first word, as fp8_amax says, on either device) to the largest magnitude of
/// `values`, fp32 or bf16 of any shape; fp32 as they are when rounded to bf16. Bits of what is not
/// negative are in the order of their numbers: as fp32 the largest of several ranks is an
/// all-reduce (max). That may lose a NaN, which the cast of whoever has it then keeps as such.
void raise_amax(at::Tensor amax, const at::Tensor& values);
/// The same at the scale that `to` has.
void to_fp8_at_scale_out(Fp8Matrix& to, const at::Tensor& x, Fp8 type);
/// The columns [C, R and padding] of a cast whose rows [R, C] are at hand, contiguous and at 8
/// bytes: bytes are moved, nothing is rounded.
at::Tensor fp8_columns(const at::Tensor& rows);

/// One side of a product: rows [M, K] or [N, K], N and K multiples of 16, and their scale, which
/// both begin at 16 bytes.
struct Fp8Operand {
  const at::Tensor& matrix;
  const at::Tensor& scale;
};
/// How a product adds up. Hopper's tensor cores add FP8 in 22 bits, 14 of them behind the point;
/// fast: throughout, split: for some 128 terms, whose sums are added in fp32.
enum class Fp8Sums { fast, split };
/// out [M, N] = a b^T (+ bias [N] of bf16 outputs, or + out): out bf16 or fp32, rows may lie
/// further apart than they are long. On average a b^T of what was cast: times what rounding took
/// (fp8_scale.h), 1.0019 of e4m3 and e4m3, 1.0042 of e5m2 and e4m3.
void fp8_product_out(at::Tensor& out, const Fp8Operand& a, const Fp8Operand& b, Fp8Sums sums,
                     const at::Tensor& bias = {}, Accumulate accumulate = Accumulate::overwrite);

/// Whether the device multiplies FP8 (Ada and Hopper on, and the CPU, which computes the same
/// products of what the casts stored).
bool multiplies_fp8(at::Device device);

}  // namespace tptrain::kernels
