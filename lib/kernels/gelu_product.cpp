#include "kernels/gelu_product.h"

#include "kernels/composition.h"
#include "kernels/cuda/product.h"

namespace tptrain::kernels {

namespace {

void check(const at::Tensor& a, const at::Tensor& b, const at::Tensor& first,
           const at::Tensor& second, const char* function) {
  expect(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0) && first.dim() == 2 &&
             first.size(0) == a.size(0) && first.size(1) == b.size(1),
         function, "be [M, N] of [M, K] and [K, N]", first.sizes());
  expect(first.sizes() == second.sizes(), function, "be of one size with the other", first.sizes());
  expect_contiguous(first, function);
  expect_contiguous(second, function);
}

}  // namespace

void gelu_product_out(at::Tensor& pre, at::Tensor& activation, const at::Tensor& a,
                      const at::Tensor& b, const at::Tensor& bias) {
  check(a, b, pre, activation, "gelu_product_out");
  const auto one_after_the_other = [&](at::Tensor& out, Accumulate) {
    product_out(pre, a, b, bias);
    gelu_tanh_out(out, pre);
  };
  const cuda::Product fused = {
      .out = activation, .a = a, .b = b, .bias = bias, .gelu = cuda::Gelu::forward, .pre = pre};
  if (cuda::takes_product(fused)) return cuda::multiply(fused, one_after_the_other);
  one_after_the_other(activation, Accumulate::overwrite);
}

void gelu_backward_product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                               const at::Tensor& pre) {
  check(a, b, out, pre, "gelu_backward_product_out");
  const auto one_after_the_other = [&](at::Tensor& to, Accumulate) {
    product_out(to, a, b);
    gelu_tanh_backward_out(to, to, pre);
  };
  const cuda::Product fused = {
      .out = out, .a = a, .b = b, .gelu = cuda::Gelu::backward, .pre = pre};
  if (cuda::takes_product(fused)) return cuda::multiply(fused, one_after_the_other);
  one_after_the_other(out, Accumulate::overwrite);
}

}  // namespace tptrain::kernels
