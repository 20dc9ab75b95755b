// LayerNorm and residual + LayerNorm: dispatch to the CPU loops or the ATen composition.
#include <utility>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

struct Weights {
  const at::Tensor& weight;
  const at::Tensor& bias;
};

template <typename T>
cpu::LayerNormForward<T> forward_args(const at::Tensor& x, const Weights& weights,
                                      const at::Tensor& output, float* statistics) {
  cpu::LayerNormForward<T> args;
  args.x = read<T>(x);
  args.weight = read<T>(weights.weight);
  args.bias = read<T>(weights.bias);
  args.output = write<T>(output);
  args.mean = statistics;
  args.inverse_std = statistics + rows_of(x);
  args.hidden = x.size(-1);
  return args;
}

LayerNormResult norm_by_loops(const at::Tensor& x, const at::Tensor* delta, at::Tensor* sum,
                              const Weights& weights, double eps) {
  LayerNormResult result{at::empty_like(x),
                         at::empty({2, rows_of(x)}, x.options().dtype(at::kFloat))};
  with_element_of(x, [&]<typename T>(T) {
    cpu::LayerNormForward<T> args =
        forward_args<T>(x, weights, result.output, result.statistics.data_ptr<float>());
    args.delta = delta != nullptr ? read<T>(*delta) : nullptr;
    args.sum = sum != nullptr ? write<T>(*sum) : nullptr;
    args.eps = eps;
    cpu::parallel_rows(rows_of(x), cpu::grain_of(args.hidden),
                       [&](int64_t begin, int64_t end) { cpu::layer_norm_rows(args, begin, end); });
  });
  return result;
}

at::Tensor again_by_loops(const at::Tensor& x, const Weights& weights,
                          const at::Tensor& statistics) {
  at::Tensor output = at::empty_like(x);
  with_element_of(x, [&]<typename T>(T) {
    const cpu::LayerNormForward<T> args =
        forward_args<T>(x, weights, output, const_cast<float*>(read<float>(statistics)));
    cpu::parallel_rows(rows_of(x), cpu::grain_of(args.hidden), [&](int64_t begin, int64_t end) {
      cpu::layer_norm_again_rows(args, begin, end);
    });
  });
  return output;
}

LayerNormResult norm_by_cuda(const at::Tensor& x, const at::Tensor* delta, at::Tensor* sum,
                             const Weights& weights, double eps) {
  const int64_t rows = rows_of(x);
  LayerNormResult result{at::empty_like(x), at::empty({2, rows}, x.options().dtype(at::kFloat))};
  float* statistics = result.statistics.data_ptr<float>();
  cuda::norm_forward({.element = element_of(x),
                      .x = x.const_data_ptr(),
                      .delta = delta != nullptr ? delta->const_data_ptr() : nullptr,
                      .weight = weights.weight.const_data_ptr(),
                      .bias = weights.bias.const_data_ptr(),
                      .sum = sum != nullptr ? sum->mutable_data_ptr() : nullptr,
                      .output = result.output.mutable_data_ptr(),
                      .mean = statistics,
                      .inverse = statistics + rows,
                      .rows = rows,
                      .hidden = x.size(-1),
                      .eps = static_cast<float>(eps)},
                     cuda::stream_of(x));
  cuda::check_launch("layer_norm");
  return result;
}

at::Tensor again_by_cuda(const at::Tensor& x, const Weights& weights,
                         const at::Tensor& statistics) {
  at::Tensor output = at::empty_like(x);
  const int64_t rows = rows_of(x);
  auto* means = const_cast<float*>(statistics.const_data_ptr<float>());  // only read
  cuda::norm_again({.element = element_of(x),
                    .x = x.const_data_ptr(),
                    .weight = weights.weight.const_data_ptr(),
                    .bias = weights.bias.const_data_ptr(),
                    .output = output.mutable_data_ptr(),
                    .mean = means,
                    .inverse = means + rows,
                    .rows = rows,
                    .hidden = x.size(-1)},
                   cuda::stream_of(x));
  cuda::check_launch("layer_norm_again");
  return output;
}

at::Tensor backward_by_cuda(const at::Tensor* grad_sum, const at::Tensor& grad_output,
                            const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& statistics, at::Tensor& weight_grad,
                            at::Tensor& bias_grad, at::Tensor* column_sums) {
  const int64_t rows = rows_of(x);
  const int64_t hidden = x.size(-1);
  at::Tensor grad_x = at::empty_like(x);
  const at::Tensor partial =
      at::empty({cuda::norm_backward_blocks(rows), 3 * hidden}, x.options().dtype(at::kFloat));
  at::Tensor sums;
  if (column_sums != nullptr) sums = at::empty({hidden}, partial.options());
  const float* means = statistics.const_data_ptr<float>();
  const bool summed =
      cuda::norm_backward({.element = element_of(x),
                           .grad_output = grad_output.const_data_ptr(),
                           .grad_sum = grad_sum != nullptr ? grad_sum->const_data_ptr() : nullptr,
                           .x = x.const_data_ptr(),
                           .weight = weight.const_data_ptr(),
                           .mean = means,
                           .inverse = means + rows,
                           .grad_x = grad_x.mutable_data_ptr(),
                           .partial = partial.data_ptr<float>(),
                           .weight_grad = weight_grad.data_ptr<float>(),
                           .bias_grad = bias_grad.data_ptr<float>(),
                           .column_sums = sums.defined() ? sums.data_ptr<float>() : nullptr,
                           .rows = rows,
                           .hidden = hidden},
                          cuda::stream_of(x));
  cuda::check_launch("layer_norm_backward");
  if (column_sums != nullptr && summed) *column_sums = std::move(sums);
  return grad_x;
}

at::Tensor backward_by_loops(const at::Tensor* grad_sum, const at::Tensor& grad_output,
                             const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& statistics, at::Tensor& weight_grad,
                             at::Tensor& bias_grad) {
  const int64_t hidden = x.size(-1);
  at::Tensor grad_x = at::empty_like(x);
  std::vector<float> gradients(static_cast<size_t>(2 * hidden), 0.0f);
  with_element_of(x, [&]<typename T>(T) {
    cpu::LayerNormBackward<T> args;
    args.grad_output = read<T>(grad_output);
    args.x = read<T>(x);
    args.weight = read<T>(weight);
    args.mean = read<float>(statistics);
    args.inverse_std = args.mean + rows_of(x);
    args.grad_sum = grad_sum != nullptr ? read<T>(*grad_sum) : nullptr;
    args.grad_x = write<T>(grad_x);
    args.hidden = hidden;
    add_row_sums(rows_of(x), hidden, 2 * hidden, gradients.data(),
                 [&](float* sums, float* scratch, int64_t begin, int64_t end) {
                   cpu::layer_norm_backward_rows(args, sums, scratch, begin, end);
                 });
  });
  float* weight_total = write<float>(weight_grad);
  float* bias_total = write<float>(bias_grad);
  for (int64_t h = 0; h < hidden; ++h) {
    weight_total[h] += gradients[static_cast<size_t>(h)];
    bias_total[h] += gradients[static_cast<size_t>(hidden + h)];
  }
  return grad_x;
}

/// The one composition of the normed rows: all that is made from them agrees bit for bit.
at::Tensor normed(const at::Tensor& x, const at::Tensor& statistics) {
  return (x.to(compute_type(x)) - as_column(statistics[0], x)) * as_column(statistics[1], x);
}

at::Tensor output_by_composition(const at::Tensor& x, const Weights& weights,
                                 const at::Tensor& statistics) {
  const at::ScalarType type = compute_type(x);
  return (normed(x, statistics) * weights.weight.to(type) + weights.bias.to(type))
      .to(x.scalar_type());
}

LayerNormResult norm_by_composition(const at::Tensor& x, const Weights& weights, double eps) {
  const at::Tensor wide = x.to(compute_type(x));
  const at::Tensor mean = at::mean(wide, {-1}, /*keepdim=*/true);
  const at::Tensor difference = wide - mean;
  const at::Tensor inverse_std =
      at::rsqrt(at::mean(difference * difference, {-1}, /*keepdim=*/true) + eps);
  const at::Tensor statistics = at::stack({mean.reshape({-1}), inverse_std.reshape({-1})});
  return {output_by_composition(x, weights, statistics), statistics};
}

at::Tensor backward_by_composition(const at::Tensor& grad_output, const at::Tensor& x,
                                   const at::Tensor& weight, const at::Tensor& statistics,
                                   at::Tensor& weight_grad, at::Tensor& bias_grad) {
  const at::ScalarType type = compute_type(x);
  const int64_t hidden = x.size(-1);
  const at::Tensor rows = normed(x, statistics);
  const at::Tensor wide_grad = grad_output.to(type);
  weight_grad.add_((wide_grad * rows).reshape({-1, hidden}).sum(0).to(weight_grad.scalar_type()));
  bias_grad.add_(wide_grad.reshape({-1, hidden}).sum(0).to(bias_grad.scalar_type()));
  const at::Tensor scaled = wide_grad * weight.to(type);
  return as_column(statistics[1], x) * (scaled - at::mean(scaled, {-1}, /*keepdim=*/true) -
                                        rows * at::mean(scaled * rows, {-1}, /*keepdim=*/true));
}

void check_forward(const at::Tensor& x, const Weights& weights, const char* function) {
  expect(x.dim() >= 1 && weights.weight.dim() == 1 && weights.weight.size(0) == x.size(-1) &&
             weights.bias.sizes() == weights.weight.sizes(),
         function, "end in the size of weight and bias", x.sizes());
  expect_contiguous(x, function);
  expect_contiguous(weights.weight, function);
  expect_contiguous(weights.bias, function);
}

void check_statistics(const at::Tensor& x, const at::Tensor& statistics, const char* function) {
  expect(statistics.dim() == 2 && statistics.size(0) == 2 && statistics.size(1) == rows_of(x),
         function, "have two statistics a token", statistics.sizes());
  expect_contiguous(statistics, function);
}

void check_backward(const at::Tensor& grad_output, const at::Tensor& x,
                    const at::Tensor& statistics, const at::Tensor& weight_grad,
                    const at::Tensor& bias_grad, const char* function) {
  expect(grad_output.sizes() == x.sizes(), function, "have a grad_output of the size of x",
         grad_output.sizes());
  check_statistics(x, statistics, function);
  expect(weight_grad.numel() == x.size(-1) && bias_grad.numel() == x.size(-1), function,
         "have one weight_grad and bias_grad a column", weight_grad.sizes());
  expect_contiguous(grad_output, function);
  expect_contiguous(weight_grad, function);
  expect_contiguous(bias_grad, function);
}

}  // namespace

LayerNormResult layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           double eps) {
  const Weights weights{weight, bias};
  check_forward(x, weights, "layer_norm");
  if (takes_cpu_loops(x)) return norm_by_loops(x, nullptr, nullptr, weights, eps);
  if (takes_cuda_norms(x)) return norm_by_cuda(x, nullptr, nullptr, weights, eps);
  return norm_by_composition(x, weights, eps);
}

at::Tensor layer_norm_again(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& statistics) {
  const Weights weights{weight, bias};
  check_forward(x, weights, "layer_norm_again");
  check_statistics(x, statistics, "layer_norm_again");
  if (takes_cpu_loops(x)) return again_by_loops(x, weights, statistics);
  if (takes_cuda_norms(x)) return again_by_cuda(x, weights, statistics);
  return output_by_composition(x, weights, statistics);
}

at::Tensor layer_norm_backward(const at::Tensor& grad_output, const at::Tensor& x,
                               const at::Tensor& weight, const at::Tensor& statistics,
                               at::Tensor& weight_grad, at::Tensor& bias_grad,
                               at::Tensor* column_sums) {
  check_backward(grad_output, x, statistics, weight_grad, bias_grad, "layer_norm_backward");
  if (takes_cpu_loops(x))
    return backward_by_loops(nullptr, grad_output, x, weight, statistics, weight_grad, bias_grad);
  if (takes_cuda_norms(x))
    return backward_by_cuda(nullptr, grad_output, x, weight, statistics, weight_grad, bias_grad,
                            column_sums);
  return backward_by_composition(grad_output, x, weight, statistics, weight_grad, bias_grad)
      .to(x.scalar_type());
}

AddLayerNormResult add_layer_norm(const at::Tensor& residual, const at::Tensor& delta,
                                  const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const Weights weights{weight, bias};
  check_forward(residual, weights, "add_layer_norm");
  expect(delta.sizes() == residual.sizes(), "add_layer_norm",
         "have a delta of the size of residual", delta.sizes());
  expect_contiguous(delta, "add_layer_norm");
  if (takes_cpu_loops(residual) || takes_cuda_norms(residual)) {
    at::Tensor sum = at::empty_like(residual);
    LayerNormResult norm = takes_cpu_loops(residual)
                               ? norm_by_loops(residual, &delta, &sum, weights, eps)
                               : norm_by_cuda(residual, &delta, &sum, weights, eps);
    return {std::move(sum), std::move(norm)};
  }
  at::Tensor sum = residual + delta;  // rounded to its type: the norm is of the sum as stored
  LayerNormResult norm = norm_by_composition(sum, weights, eps);
  return {std::move(sum), std::move(norm)};
}

at::Tensor add_layer_norm_backward(const at::Tensor& grad_sum, const at::Tensor& grad_output,
                                   const at::Tensor& sum, const at::Tensor& weight,
                                   const at::Tensor& statistics, at::Tensor& weight_grad,
                                   at::Tensor& bias_grad, at::Tensor* column_sums) {
  check_backward(grad_output, sum, statistics, weight_grad, bias_grad, "add_layer_norm_backward");
  expect(grad_sum.sizes() == sum.sizes(), "add_layer_norm_backward",
         "have a grad_sum of the size of sum", grad_sum.sizes());
  expect_contiguous(grad_sum, "add_layer_norm_backward");
  if (takes_cpu_loops(sum))
    return backward_by_loops(&grad_sum, grad_output, sum, weight, statistics, weight_grad,
                             bias_grad);
  if (takes_cuda_norms(sum))
    return backward_by_cuda(&grad_sum, grad_output, sum, weight, statistics, weight_grad, bias_grad,
                            column_sums);
  // Added before the rounding to bf16, as one pass would.
  return (backward_by_composition(grad_output, sum, weight, statistics, weight_grad, bias_grad) +
          grad_sum)
      .to(sum.scalar_type());
}

}  // namespace tptrain::kernels
