// The products of the layers, and the weight gradient's, which is accumulated inside the
// multiplication: no temporary of the weight's size and no second pass over it.
#include "kernels/composition.h"
#include "kernels/cuda/product.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

// Into bf16, or into fp32, which the accumulator is in any case.
void multiply_by_aten(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                      const at::Tensor& bias, Accumulate accumulate) {
  const bool widens = out.scalar_type() != a.scalar_type();
  if (bias.defined()) {
    at::addmm_out(out, bias, a, b);
  } else if (accumulate == Accumulate::overwrite) {
    widens ? at::mm_out(out, a, b, out.scalar_type()) : at::mm_out(out, a, b);
  } else {
    widens ? at::addmm_out(out, out, a, b, out.scalar_type()) : at::addmm_out(out, out, a, b);
  }
}
void multiply_scaled_by_aten(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                             double factor, Accumulate accumulate) {
  // With beta 0 what `out` holds is not read.
  at::addmm_out(out, out, a, b, /*beta=*/accumulate == Accumulate::add ? 1.0 : 0.0,
                /*alpha=*/factor);
}

void multiply(const cuda::Product& product) {
  const auto by_aten = [&](at::Tensor& out, Accumulate accumulate) {
    if (product.factor == 1.0f)
      multiply_by_aten(out, product.a, product.b, product.bias, accumulate);
    else
      multiply_scaled_by_aten(out, product.a, product.b, product.factor, accumulate);
  };
  if (cuda::takes_product(product)) {
    cuda::multiply(product, by_aten);
    return;
  }
  at::Tensor out = product.out;
  by_aten(out, product.accumulate);
}

}  // namespace

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  expect(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0), "product",
         "be a matrix [M, K] to multiply by a matrix [K, N]", a.sizes());
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  product_out(out, a, b, bias);
  return out;
}

void product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                 const at::Tensor& bias) {
  multiply({.out = out, .a = a, .b = b, .bias = bias});
}

void scaled_product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, double factor,
                        Accumulate accumulate) {
  expect(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0) && out.dim() == 2 &&
             out.size(0) == a.size(0) && out.size(1) == b.size(1),
         "scaled_product_out", "be [M, N] for the product of [M, K] and [K, N]", out.sizes());
  multiply(
      {.out = out, .a = a, .b = b, .accumulate = accumulate, .factor = static_cast<float>(factor)});
}

void accumulate_weight_gradient(at::Tensor& grad, const at::Tensor& grad_output,
                                const at::Tensor& input, Accumulate accumulate) {
  const at::Tensor dy = grad_output.reshape({-1, grad_output.size(-1)});  // [T, out]
  const at::Tensor x = input.reshape({-1, input.size(-1)});               // [T, in]
  expect(dy.size(0) == x.size(0) && grad.dim() == 2 && grad.size(0) == dy.size(1) &&
             grad.size(1) == x.size(1),
         "accumulate_weight_gradient", "be [out, in] of grad_output [T, out] and input [T, in]",
         grad.sizes());
  if (grad.is_cuda()) {
    multiply({.out = grad, .a = dy.t(), .b = x, .accumulate = accumulate});
    return;
  }
  // ATen has no GEMM of bf16 into fp32 on the CPU, and one rounded to bf16 would lose what the
  // accumulator is there for: the inputs are widened, which is exact, and multiplied in fp32.
  at::Tensor wide = grad.to(at::promote_types(grad.scalar_type(), at::kFloat));  // or itself
  multiply({.out = wide,
            .a = dy.t().to(wide.scalar_type()),
            .b = x.to(wide.scalar_type()),
            .accumulate = accumulate});
  if (!wide.is_same(grad)) grad.copy_(wide);
}

}  // namespace tptrain::kernels
