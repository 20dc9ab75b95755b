// Products of bf16 and FP8 matrices by cuBLASLt, with the algorithm that is fastest on this device
// for the shape at hand: the first product of a shape times what the library proposes beside ATen's
// product (some 0.1 s for a large one), and the choice is kept while the process lives.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "kernels/kernels.h"

namespace tptrain::kernels::cuda {

/// Of what a product writes: its GELU, beside the product itself in `pre`; or the product times the
/// derivative of GELU at `pre`.
enum class Gelu { none, forward, backward };

/// out [M, N] = a [M, K] b [K, N] (+ bias [N], or + out). Sums in fp32, rounded once.
struct Product {
  at::Tensor out;        // bf16 or fp32; rows may lie further apart than they are long
  at::Tensor a, b;       // bf16; rows, or the transpose of rows, that may lie apart as well
  at::Tensor bias = {};  // bf16; undefined: none
  Accumulate accumulate = Accumulate::overwrite;
  // Of FP8 operands: what their values are to be multiplied by (fp32 [1] each), and how to add up.
  at::Tensor a_scale = {}, b_scale = {};
  float factor = 1.0f;  // of the product, not of what is added to it
  bool fast_sums = false;
  Gelu gelu = Gelu::none;  // of bf16 products; forward: with a bias
  at::Tensor pre = {};     // [M, N] like out, contiguous
};
/// Not in deterministic mode, where clocks would decide about bits, and not of more than 0.35
/// TFLOP (4 of sums of at most 1,024 terms).
bool takes_product(const Product& product);
/// The same product by ATen, into `out`, of the size and placement of the product's.
using ByAten = std::function<void(at::Tensor& out, Accumulate accumulate)>;
/// Whoever is fastest; the other only by 2 %, which a clock may make in passing. Waits for the
/// device where a shape is new. In a stream that is being captured nothing can be timed: such a
/// shape goes to ATen, this once.
void multiply(const Product& product, const ByAten& by_aten);
/// Of FP8: a as its rows, b as the transpose of rows, all sizes but M multiples of 16. There is no
/// other library to turn to: what cannot be timed (a capture, deterministic mode) or is too large
/// for a choice by clocks takes the library's first proposal.
void multiply_fp8(const Product& product);
bool multiplies_fp8(int device);

}  // namespace tptrain::kernels::cuda
