// Products of bf16 matrices by cuBLASLt, with the algorithm that is fastest on this device for the
// shape at hand: the first product of a shape times what the library proposes beside ATen's product
// (some 0.1 s for a large one), and the choice is kept while the process lives.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "kernels/kernels.h"

namespace tptrain::kernels::cuda {

/// out [M, N] = a [M, K] b [K, N] (+ bias [N], or + out). Sums in fp32, rounded once.
struct Product {
  at::Tensor out;        // bf16 or fp32; rows may lie further apart than they are long
  at::Tensor a, b;       // bf16; rows, or the transpose of rows, that may lie apart as well
  at::Tensor bias = {};  // bf16; undefined: none
  Accumulate accumulate = Accumulate::overwrite;
};
/// Not in deterministic mode, where clocks would decide about bits, and not of more than 0.35 TFLOP.
bool takes_product(const Product& product);
/// The same product by ATen, into `out`, of the size and placement of the product's.
using ByAten = std::function<void(at::Tensor& out, Accumulate accumulate)>;
/// Whoever is fastest; the other only by 2 %, which a clock may make in passing. Waits for the
/// device where a shape is new. In a stream that is being captured nothing can be timed: such a
/// shape goes to ATen, this once.
void multiply(const Product& product, const ByAten& by_aten);

}  // namespace tptrain::kernels::cuda
