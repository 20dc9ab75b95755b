// Linears with the activation behind them, or with its derivative before them.
#include <ATen/ATen.h>

#include "kernels/gelu_product.h"
#include "kernels/swiglu_product.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/rows.h"

namespace tptrain::tensor_parallel {
namespace {

/// product(pre, activation, rows) of each part of x as it is there: pre and activation are its rows
/// of [S, B, outputs] and [S, B, activations].
template <typename Product>
ColumnParallelLinear::WithActivation forward_by_parts(GatheredSequence& x, int64_t outputs,
                                                      int64_t activations, const Product& product) {
  ColumnParallelLinear::WithActivation result;
  result.output = at::empty({x.length(), x.batch(), outputs}, x.options());
  result.activation = at::empty({x.length(), x.batch(), activations}, x.options());
  x.for_each_part([&](int64_t first, const at::Tensor& rows) {
    at::Tensor pre = rows_of(result.output.narrow(0, first, rows.size(0)));
    at::Tensor activation = rows_of(result.activation.narrow(0, first, rows.size(0)));
    product(pre, activation, rows_of(rows));
  });
  return result;
}

/// The gradient at `pre`: product(its rows, grad_output's, pre's) of each part as it is there.
template <typename Product>
at::Tensor backward_by_parts(GatheredSequence& grad_output, const at::Tensor& pre,
                             const Product& product) {
  at::Tensor gradient = at::empty_like(pre);
  grad_output.for_each_part([&](int64_t first, const at::Tensor& rows) {
    at::Tensor part = rows_of(gradient.narrow(0, first, rows.size(0)));
    product(part, rows_of(rows), rows_of(pre.narrow(0, first, rows.size(0))));
  });
  return gradient;
}

}  // namespace

ColumnParallelLinear::WithActivation ColumnParallelLinear::forward_gelu(GatheredSequence& x) const {
  const at::Tensor transposed = weight_.values().t();
  const int64_t outputs = weight_.shape[0];
  return forward_by_parts(
      x, outputs, outputs, [&](at::Tensor& pre, at::Tensor& activation, const at::Tensor& rows) {
        kernels::gelu_product_out(pre, activation, rows, transposed, data_of(bias_.get()));
      });
}

ColumnParallelLinear::WithActivation ColumnParallelLinear::forward_swiglu(
    GatheredSequence& x) const {
  const at::Tensor values = weight_.values();
  const int64_t outputs = weight_.shape[0];
  return forward_by_parts(x, outputs, outputs / 2,
                          [&](at::Tensor& pre, at::Tensor& activation, const at::Tensor& rows) {
                            kernels::swiglu_product_out(pre, activation, rows, values);
                          });
}

at::Tensor RowParallelLinear::input_gradient_gelu(GatheredSequence& grad_output,
                                                  const at::Tensor& pre) const {
  const at::Tensor values = weight_.values();
  return backward_by_parts(grad_output, pre,
                           [&](at::Tensor& part, const at::Tensor& grad, const at::Tensor& of) {
                             kernels::gelu_backward_product_out(part, grad, values, of);
                           });
}

at::Tensor RowParallelLinear::input_gradient_swiglu(GatheredSequence& grad_output,
                                                    const at::Tensor& pre) const {
  const at::Tensor values = weight_.values();
  return backward_by_parts(grad_output, pre,
                           [&](at::Tensor& part, const at::Tensor& grad, const at::Tensor& of) {
                             kernels::swiglu_backward_product_out(part, grad, values, of);
                           });
}

}  // namespace tptrain::tensor_parallel
