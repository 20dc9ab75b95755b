// The weight gradient's GEMM, accumulated inside the multiplication: no temporary of the weight's
// size and no second pass over it.
#include "kernels/composition.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

void accumulate_weight_gradient(at::Tensor& grad, const at::Tensor& grad_output,
                                const at::Tensor& input, Accumulate accumulate) {
  const at::Tensor dy = grad_output.reshape({-1, grad_output.size(-1)});  // [T, out]
  const at::Tensor x = input.reshape({-1, input.size(-1)});               // [T, in]
  expect(dy.size(0) == x.size(0) && grad.dim() == 2 && grad.size(0) == dy.size(1) &&
             grad.size(1) == x.size(1),
         "accumulate_weight_gradient", "be [out, in] of grad_output [T, out] and input [T, in]",
         grad.sizes());
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
