// SwiGLU in the product that makes its input, and its derivative in the product that makes its
// gradient, by kernels for Hopper: a pass over the product less each. The bits are those of one
// after the other. Plain pointers and sizes; which call takes them is decided in
// ../swiglu_product.cpp. In a build without CUDA (absent.cpp) nothing of it is called.
#pragma once

#include <cstdint>

#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

/// Of bf16, rows contiguous but those of `a`, `a_distance` elements apart.
struct SwigluProduct {
  const void* a = nullptr;       // [tokens, k]
  const void* weight = nullptr;  // forward [2 ffn, k], gates first; backward [k, ffn]
  const void* pre = nullptr;     // backward: [tokens, 2 ffn], what forward left
  void* out = nullptr;           // [tokens, 2 ffn]: the product, or its gradient
  void* activation = nullptr;    // forward: [tokens, ffn]
  int64_t tokens = 0;
  int64_t k = 0;
  int64_t ffn = 0;
  int64_t a_distance = 0;
};

/// Whether the kernels take such sizes and addresses, and are worth it: the current device is of
/// capability 9.0, tiles fill it, and sums are long beside what is done with them.
bool takes_swiglu_product(const SwigluProduct& args);
void swiglu_product(const SwigluProduct& args, Stream stream);
/// out = the gradient at `pre` of SwiGLU, whose own is a weight.
void swiglu_backward_product(const SwigluProduct& args, Stream stream);

}  // namespace tptrain::kernels::cuda
