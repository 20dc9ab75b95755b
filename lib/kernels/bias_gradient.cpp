// The gradient of a bias: column sums, added in fp32.
#include "kernels/composition.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

void accumulate_bias_gradient(at::Tensor& grad, const at::Tensor& grad_output) {
  expect(grad.dim() == 1 && grad_output.dim() >= 1 && grad_output.size(-1) == grad.size(0),
         "accumulate_bias_gradient", "end in the size of the bias", grad_output.sizes());
  if (!takes_cuda_kernels(grad_output) || grad.scalar_type() != at::kFloat) {
    const at::Tensor rows = grad_output.reshape({-1, grad_output.size(-1)});
    grad.add_(at::sum(rows, {0}, /*keepdim=*/false, grad.scalar_type()));
    return;
  }
  expect_contiguous(grad, "accumulate_bias_gradient");
  expect_contiguous(grad_output, "accumulate_bias_gradient");
  const int64_t rows = rows_of(grad_output);
  const int64_t columns = grad.size(0);
  const at::Tensor partial =
      at::empty({cuda::column_sum_blocks(rows, columns), columns}, grad.options());
  cuda::add_column_sums({.element = element_of(grad_output),
                         .x = grad_output.const_data_ptr(),
                         .partial = partial.data_ptr<float>(),
                         .total = grad.data_ptr<float>(),
                         .rows = rows,
                         .columns = columns},
                        cuda::stream_of(grad_output));
  cuda::check_launch("accumulate_bias_gradient");
}

}  // namespace tptrain::kernels
