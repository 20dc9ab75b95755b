// Linears with the activation behind them, or with its derivative before them.
#include <ATen/ATen.h>

#include "kernels/gelu_product.h"
#include "kernels/swiglu_product.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/rows.h"

namespace tptrain::tensor_parallel {

ColumnParallelLinear::WithActivation ColumnParallelLinear::forward_gelu(GatheredSequence& x) const {
  WithActivation result;
  result.output = at::empty({x.length(), x.batch(), weight_.shape[0]}, x.options());
  result.activation = at::empty_like(result.output);
  const at::Tensor transposed = weight_.values().t();
  x.for_each_part([&](int64_t first, const at::Tensor& rows) {
    at::Tensor pre = rows_of(result.output.narrow(0, first, rows.size(0)));
    at::Tensor activation = rows_of(result.activation.narrow(0, first, rows.size(0)));
    kernels::gelu_product_out(pre, activation, rows_of(rows), transposed, data_of(bias_.get()));
  });
  return result;
}

ColumnParallelLinear::WithActivation ColumnParallelLinear::forward_swiglu(
    GatheredSequence& x) const {
  WithActivation result;
  const at::Tensor weight = weight_.values();
  result.output = at::empty({x.length(), x.batch(), weight_.shape[0]}, x.options());
  result.activation = at::empty({x.length(), x.batch(), weight_.shape[0] / 2}, x.options());
  x.for_each_part([&](int64_t first, const at::Tensor& rows) {
    at::Tensor pre = rows_of(result.output.narrow(0, first, rows.size(0)));
    at::Tensor activation = rows_of(result.activation.narrow(0, first, rows.size(0)));
    kernels::swiglu_product_out(pre, activation, rows_of(rows), weight);
  });
  return result;
}

at::Tensor RowParallelLinear::input_gradient_gelu(GatheredSequence& grad_output,
                                                  const at::Tensor& pre) const {
  at::Tensor gradient = at::empty_like(pre);
  const at::Tensor values = weight_.values();
  grad_output.for_each_part([&](int64_t first, const at::Tensor& rows) {
    at::Tensor part = rows_of(gradient.narrow(0, first, rows.size(0)));
    kernels::gelu_backward_product_out(part, rows_of(rows), values,
                                       rows_of(pre.narrow(0, first, rows.size(0))));
  });
  return gradient;
}

at::Tensor RowParallelLinear::input_gradient_swiglu(GatheredSequence& grad_output,
                                                    const at::Tensor& pre) const {
  at::Tensor gradient = at::empty_like(pre);
  const at::Tensor values = weight_.values();
  grad_output.for_each_part([&](int64_t first, const at::Tensor& rows) {
    at::Tensor part = rows_of(gradient.narrow(0, first, rows.size(0)));
    kernels::swiglu_backward_product_out(part, rows_of(rows), values,
                                         rows_of(pre.narrow(0, first, rows.size(0))));
  });
  return gradient;
}

}  // namespace tptrain::tensor_parallel
