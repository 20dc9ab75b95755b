// The products of the layers, and the weight gradient's, which is accumulated inside the
// multiplication: no temporary of the weight's size and no second pass over it.
#include "kernels/composition.h"
#include "kernels/cuda/product.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

at::Tensor product(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  expect(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0), "product",
         "be a matrix [M, K] to multiply by a matrix [K, N]", a.sizes());
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  product_out(out, a, b, bias);
  return out;
}

void product_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                 const at::Tensor& bias) {
  const cuda::Product product = {.out = out, .a = a, .b = b, .bias = bias};
  if (cuda::takes_product(product)) {
    cuda::multiply(product);
  } else if (bias.defined()) {
    at::addmm_out(out, bias, a, b);
  } else {
    at::mm_out(out, a, b);
  }
}

void accumulate_weight_gradient(at::Tensor& grad, const at::Tensor& grad_output,
                                const at::Tensor& input, Accumulate accumulate) {
  const at::Tensor dy = grad_output.reshape({-1, grad_output.size(-1)});  // [T, out]
  const at::Tensor x = input.reshape({-1, input.size(-1)});               // [T, in]
  expect(dy.size(0) == x.size(0) && grad.dim() == 2 && grad.size(0) == dy.size(1) &&
             grad.size(1) == x.size(1),
         "accumulate_weight_gradient", "be [out, in] of grad_output [T, out] and input [T, in]",
         grad.sizes());
  const cuda::Product product = {.out = grad, .a = dy.t(), .b = x, .accumulate = accumulate};
  if (cuda::takes_product(product)) {
    cuda::multiply(product);
    return;
  }
  const bool overwrite = accumulate == Accumulate::overwrite;
  if (grad.is_cuda() && dy.scalar_type() != grad.scalar_type()) {
    // bf16 inputs, fp32 accumulator and output
    if (overwrite) {
      at::mm_out(grad, dy.t(), x, grad.scalar_type());
    } else {
      at::addmm_out(grad, grad, dy.t(), x, grad.scalar_type());
    }
    return;
  }
  // ATen has no GEMM of bf16 into fp32 on the CPU, and one rounded to bf16 would lose what the
  // accumulator is there for: the inputs are widened, which is exact, and multiplied in fp32.
  const at::Tensor dy_t = dy.t().to(grad.scalar_type());
  const at::Tensor wide_x = x.to(grad.scalar_type());
  if (overwrite) {
    at::mm_out(grad, dy_t, wide_x);
  } else {
    at::addmm_out(grad, grad, dy_t, wide_x);
  }
}

}  // namespace tptrain::kernels
