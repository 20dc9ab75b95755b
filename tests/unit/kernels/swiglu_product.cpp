// SwiGLU inside products: within the rounding of bf16 of fp64, whichever way is taken; where a
// kernel has both (capability 9.0), what it leaves is SwiGLU of the product that it left.
#include "kernels/cuda/swiglu_product.h"

#include <ATen/ATen.h>

#include <cmath>

#include "kernels/cuda/properties.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels/swiglu_product.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

// Of a sum, and of what is made of it.
constexpr double kTwoRoundings = 2 * kOneBf16Rounding;

struct Size {
  int64_t tokens, k, ffn;
};
#ifndef TPTRAIN_TEST_ON_CPU
constexpr Size kTaken = {2048, 4096, 8192};  // by the kernel
#endif
// Tokens, K or columns are others, or there are too few tiles.
const std::vector<Size> kLeft = {{2048 + 8, 4096, 512}, {256, 96, 128}, {33, 40, 24}};

at::Tensor drawn(at::IntArrayRef sizes, double scale) {
  return at::randn(sizes, at::TensorOptions(device()).dtype(at::kBFloat16)).mul_(scale);
}
void check_forward(const Size& size) {
  CAPTURE(size.tokens, size.k, size.ffn);
  const at::Tensor x = drawn({size.tokens, size.k + 8}, 1.0).narrow(1, 0, size.k);
  const at::Tensor weight = drawn({2 * size.ffn, size.k}, 1 / std::sqrt(size.k));
  at::Tensor pre = at::full({size.tokens, 2 * size.ffn}, std::nan(""), x.options());
  at::Tensor activation = at::full({size.tokens, size.ffn}, std::nan(""), x.options());
  swiglu_product_out(pre, activation, x, weight);
  CHECK_CLOSE(pre, at::mm(x.to(at::kDouble), weight.to(at::kDouble).t()), kOneBf16Rounding);
  CHECK(same_bits(activation, swiglu(pre)));
}

void check_backward(const Size& size) {
  CAPTURE(size.tokens, size.k, size.ffn);
  const at::Tensor grad = drawn({size.tokens, size.k + 8}, 1.0).narrow(1, 0, size.k);
  const at::Tensor weight = drawn({size.k, size.ffn}, 1 / std::sqrt(size.k));
  const at::Tensor pre = drawn({size.tokens, 2 * size.ffn}, 1.0);
  at::Tensor out = at::full_like(pre, std::nan(""));
  swiglu_backward_product_out(out, grad, weight, pre);
  const at::Tensor of_activation = at::mm(grad.to(at::kDouble), weight.to(at::kDouble));
  const std::vector<at::Tensor> halves = pre.to(at::kDouble).chunk(2, -1);
  const at::Tensor s = at::sigmoid(halves[0]), silu = halves[0] * s;
  CHECK_CLOSE(out,
              at::cat({of_activation * halves[1] * (s + silu * (1 - s)), of_activation * silu}, -1),
              kTwoRoundings);
}

}  // namespace

#ifndef TPTRAIN_TEST_ON_CPU
TEST_CASE("which products have SwiGLU inside", "[kernels]") {
  const auto takes = [](const Size& size) {
    return cuda::takes_swiglu_product(
        {.tokens = size.tokens, .k = size.k, .ffn = size.ffn, .a_distance = size.k});
  };
  CHECK(takes(kTaken) == (cuda::capability() == 90));
  for (const Size& size : kLeft) CHECK_FALSE(takes(size));
}

TEST_CASE("products with SwiGLU inside have the same bits at every call", "[kernels]") {
  check_forward(kTaken);
  check_backward(kTaken);
  const at::Tensor x = drawn({kTaken.tokens, kTaken.k}, 1.0);
  const at::Tensor weight = drawn({2 * kTaken.ffn, kTaken.k}, 0.02);
  at::Tensor first, first_activation;
  for (int call = 0; call < 5; ++call) {
    at::Tensor pre = at::empty({kTaken.tokens, 2 * kTaken.ffn}, x.options());
    at::Tensor activation = at::empty({kTaken.tokens, kTaken.ffn}, x.options());
    swiglu_product_out(pre, activation, x, weight);
    if (call == 0) first = pre, first_activation = activation;
    CHECK(same_bits(pre, first));
    CHECK(same_bits(activation, first_activation));
  }
}
#endif

TEST_CASE("products with SwiGLU and with its derivative agree with fp64", "[kernels]") {
  for (const Size& size : kLeft) {
    check_forward(size);
    check_backward(size);
  }
}
