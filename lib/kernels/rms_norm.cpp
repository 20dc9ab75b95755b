// RMSNorm and residual + RMSNorm: dispatch to the CPU loops or the ATen composition.
#include <vector>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

RmsNormResult norm_by_loops(const at::Tensor& x, const at::Tensor* delta, at::Tensor* sum,
                            const at::Tensor& weight, double eps) {
  const int64_t hidden = x.size(-1);
  RmsNormResult result{at::empty_like(x), at::empty({rows_of(x)}, x.options().dtype(at::kFloat))};
  with_element_of(x, [&]<typename T>(T) {
    cpu::RmsNormForward<T> args;
    args.x = read<T>(x);
    args.delta = delta != nullptr ? read<T>(*delta) : nullptr;
    args.weight = read<T>(weight);
    args.sum = sum != nullptr ? write<T>(*sum) : nullptr;
    args.output = write<T>(result.output);
    args.inverse_rms = result.inverse_rms.data_ptr<float>();
    args.hidden = hidden;
    args.eps = eps;
    cpu::parallel_rows(rows_of(x), cpu::grain_of(hidden),
                       [&](int64_t begin, int64_t end) { cpu::rms_norm_rows(args, begin, end); });
  });
  return result;
}

at::Tensor again_by_loops(const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& inverse_rms) {
  at::Tensor output = at::empty_like(x);
  with_element_of(x, [&]<typename T>(T) {
    cpu::RmsNormForward<T> args;
    args.x = read<T>(x);
    args.weight = read<T>(weight);
    args.output = write<T>(output);
    args.inverse_rms = const_cast<float*>(read<float>(inverse_rms));  // only read
    args.hidden = x.size(-1);
    cpu::parallel_rows(rows_of(x), cpu::grain_of(args.hidden), [&](int64_t begin, int64_t end) {
      cpu::rms_norm_again_rows(args, begin, end);
    });
  });
  return output;
}

/// The one composition of the output: forward and rms_norm_again agree bit for bit. inverse_rms
/// broadcasts over the columns of x.
at::Tensor output_by_composition(const at::Tensor& x, const at::Tensor& weight,
                                 const at::Tensor& inverse_rms) {
  const at::ScalarType type = compute_type(x);
  return (x.to(type) * inverse_rms * weight.to(type)).to(x.scalar_type());
}

RmsNormResult rms_norm_by_composition(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(compute_type(x));
  const at::Tensor inverse_rms = at::rsqrt(at::mean(wide * wide, {-1}, /*keepdim=*/true) + eps);
  return {output_by_composition(x, weight, inverse_rms), inverse_rms.reshape({-1})};
}

RmsNormResult norm_by_cuda(const at::Tensor& x, const at::Tensor* delta, at::Tensor* sum,
                           const at::Tensor& weight, double eps) {
  RmsNormResult result{at::empty_like(x), at::empty({rows_of(x)}, x.options().dtype(at::kFloat))};
  cuda::norm_forward({.element = element_of(x),
                      .x = x.const_data_ptr(),
                      .delta = delta != nullptr ? delta->const_data_ptr() : nullptr,
                      .weight = weight.const_data_ptr(),
                      .sum = sum != nullptr ? sum->mutable_data_ptr() : nullptr,
                      .output = result.output.mutable_data_ptr(),
                      .inverse = result.inverse_rms.data_ptr<float>(),
                      .rows = rows_of(x),
                      .hidden = x.size(-1),
                      .eps = static_cast<float>(eps)},
                     cuda::stream_of(x));
  cuda::check_launch("rms_norm");
  return result;
}

at::Tensor again_by_cuda(const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& inverse_rms) {
  at::Tensor output = at::empty_like(x);
  cuda::norm_again(
      {.element = element_of(x),
       .x = x.const_data_ptr(),
       .weight = weight.const_data_ptr(),
       .output = output.mutable_data_ptr(),
       .inverse = const_cast<float*>(inverse_rms.const_data_ptr<float>()),  // only read
       .rows = rows_of(x),
       .hidden = x.size(-1)},
      cuda::stream_of(x));
  cuda::check_launch("rms_norm_again");
  return output;
}

at::Tensor backward_by_cuda(const at::Tensor* grad_sum, const at::Tensor& grad_output,
                            const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& inverse_rms, at::Tensor& weight_grad) {
  const int64_t hidden = x.size(-1);
  at::Tensor grad_x = at::empty_like(x);
  const at::Tensor partial =
      at::empty({cuda::norm_backward_blocks(rows_of(x)), hidden}, x.options().dtype(at::kFloat));
  cuda::norm_backward({.element = element_of(x),
                       .grad_output = grad_output.const_data_ptr(),
                       .grad_sum = grad_sum != nullptr ? grad_sum->const_data_ptr() : nullptr,
                       .x = x.const_data_ptr(),
                       .weight = weight.const_data_ptr(),
                       .inverse = inverse_rms.const_data_ptr<float>(),
                       .grad_x = grad_x.mutable_data_ptr(),
                       .partial = partial.data_ptr<float>(),
                       .weight_grad = weight_grad.data_ptr<float>(),
                       .rows = rows_of(x),
                       .hidden = hidden},
                      cuda::stream_of(x));
  cuda::check_launch("rms_norm_backward");
  return grad_x;
}

at::Tensor backward_by_loops(const at::Tensor* grad_sum, const at::Tensor& grad_output,
                             const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& inverse_rms, at::Tensor& weight_grad) {
  const int64_t hidden = x.size(-1);
  at::Tensor grad_x = at::empty_like(x);
  with_element_of(x, [&]<typename T>(T) {
    cpu::RmsNormBackward<T> args;
    args.grad_output = read<T>(grad_output);
    args.x = read<T>(x);
    args.weight = read<T>(weight);
    args.inverse_rms = read<float>(inverse_rms);
    args.grad_sum = grad_sum != nullptr ? read<T>(*grad_sum) : nullptr;
    args.grad_x = write<T>(grad_x);
    args.hidden = hidden;
    add_row_sums(rows_of(x), hidden, hidden, write<float>(weight_grad),
                 [&](float* sums, float* scratch, int64_t begin, int64_t end) {
                   cpu::rms_norm_backward_rows(args, sums, scratch, begin, end);
                 });
  });
  return grad_x;
}

at::Tensor backward_by_composition(const at::Tensor& grad_output, const at::Tensor& x,
                                   const at::Tensor& weight, const at::Tensor& inverse_rms,
                                   at::Tensor& weight_grad) {
  const at::ScalarType type = compute_type(x);
  const at::Tensor inverse = as_column(inverse_rms, x);
  const at::Tensor normed = x.to(type) * inverse;
  const at::Tensor wide_grad = grad_output.to(type);
  weight_grad.add_(
      (wide_grad * normed).reshape({-1, x.size(-1)}).sum(0).to(weight_grad.scalar_type()));
  const at::Tensor grad_normed = wide_grad * weight.to(type);
  return inverse * (grad_normed - normed * at::mean(grad_normed * normed, {-1}, /*keepdim=*/true));
}

void check_forward(const at::Tensor& x, const at::Tensor& weight, const char* function) {
  expect(x.dim() >= 1 && weight.dim() == 1 && weight.size(0) == x.size(-1), function,
         "end in the size of weight", x.sizes());
  expect_contiguous(x, function);
  expect_contiguous(weight, function);
}

void check_backward(const at::Tensor& grad_output, const at::Tensor& x,
                    const at::Tensor& inverse_rms, const at::Tensor& weight_grad,
                    const char* function) {
  expect(grad_output.sizes() == x.sizes(), function, "have a grad_output of the size of x",
         grad_output.sizes());
  expect(inverse_rms.numel() == rows_of(x), function, "have one inverse_rms a token",
         inverse_rms.sizes());
  expect(weight_grad.numel() == x.size(-1), function, "have one weight_grad a column",
         weight_grad.sizes());
  expect_contiguous(grad_output, function);
  expect_contiguous(weight_grad, function);
}

}  // namespace

RmsNormResult rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  check_forward(x, weight, "rms_norm");
  if (takes_cpu_loops(x)) return norm_by_loops(x, nullptr, nullptr, weight, eps);
  if (takes_cuda_norms(x)) return norm_by_cuda(x, nullptr, nullptr, weight, eps);
  return rms_norm_by_composition(x, weight, eps);
}

at::Tensor rms_norm_again(const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& inverse_rms) {
  check_forward(x, weight, "rms_norm_again");
  expect(inverse_rms.numel() == rows_of(x), "rms_norm_again", "have one inverse_rms a token",
         inverse_rms.sizes());
  if (takes_cpu_loops(x)) return again_by_loops(x, weight, inverse_rms);
  if (takes_cuda_norms(x)) return again_by_cuda(x, weight, inverse_rms);
  return output_by_composition(x, weight, as_column(inverse_rms, x));
}

at::Tensor rms_norm_backward(const at::Tensor& grad_output, const at::Tensor& x,
                             const at::Tensor& weight, const at::Tensor& inverse_rms,
                             at::Tensor& weight_grad) {
  check_backward(grad_output, x, inverse_rms, weight_grad, "rms_norm_backward");
  if (takes_cpu_loops(x))
    return backward_by_loops(nullptr, grad_output, x, weight, inverse_rms, weight_grad);
  if (takes_cuda_norms(x))
    return backward_by_cuda(nullptr, grad_output, x, weight, inverse_rms, weight_grad);
  return backward_by_composition(grad_output, x, weight, inverse_rms, weight_grad)
      .to(x.scalar_type());
}

AddRmsNormResult add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                              const at::Tensor& weight, double eps) {
  check_forward(residual, weight, "add_rms_norm");
  expect(delta.sizes() == residual.sizes(), "add_rms_norm", "have a delta of the size of residual",
         delta.sizes());
  expect_contiguous(delta, "add_rms_norm");
  if (takes_cpu_loops(residual) || takes_cuda_norms(residual)) {
    at::Tensor sum = at::empty_like(residual);
    RmsNormResult norm = takes_cpu_loops(residual)
                             ? norm_by_loops(residual, &delta, &sum, weight, eps)
                             : norm_by_cuda(residual, &delta, &sum, weight, eps);
    return {std::move(sum), std::move(norm)};
  }
  at::Tensor sum = residual + delta;  // rounded to its type: the norm is of the sum as stored
  RmsNormResult norm = rms_norm_by_composition(sum, weight, eps);
  return {std::move(sum), std::move(norm)};
}

at::Tensor add_rms_norm_backward(const at::Tensor& grad_sum, const at::Tensor& grad_output,
                                 const at::Tensor& sum, const at::Tensor& weight,
                                 const at::Tensor& inverse_rms, at::Tensor& weight_grad) {
  check_backward(grad_output, sum, inverse_rms, weight_grad, "add_rms_norm_backward");
  expect(grad_sum.sizes() == sum.sizes(), "add_rms_norm_backward",
         "have a grad_sum of the size of sum", grad_sum.sizes());
  expect_contiguous(grad_sum, "add_rms_norm_backward");
  if (takes_cpu_loops(sum))
    return backward_by_loops(&grad_sum, grad_output, sum, weight, inverse_rms, weight_grad);
  if (takes_cuda_norms(sum))
    return backward_by_cuda(&grad_sum, grad_output, sum, weight, inverse_rms, weight_grad);
  // Added before the rounding to bf16, as one pass would.
  return (backward_by_composition(grad_output, sum, weight, inverse_rms, weight_grad) + grad_sum)
      .to(sum.scalar_type());
}

}  // namespace tptrain::kernels
