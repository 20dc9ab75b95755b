// RMSNorm and residual + RMSNorm: dispatch to the CPU loops or the ATen composition.
#include <vector>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

int64_t rows_of(const at::Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }

RmsNormResult norm_by_loops(const at::Tensor& x, const at::Tensor* delta, at::Tensor* sum,
                            const at::Tensor& weight, double eps) {
  const int64_t hidden = x.size(-1);
  RmsNormResult result{at::empty_like(x), at::empty({rows_of(x)}, x.options())};
  cpu::RmsNormForward args;
  args.x = x.const_data_ptr<float>();
  args.delta = delta != nullptr ? delta->const_data_ptr<float>() : nullptr;
  args.weight = weight.const_data_ptr<float>();
  args.sum = sum != nullptr ? sum->data_ptr<float>() : nullptr;
  args.output = result.output.data_ptr<float>();
  args.inverse_rms = result.inverse_rms.data_ptr<float>();
  args.hidden = hidden;
  args.eps = eps;
  cpu::parallel_rows(rows_of(x), cpu::grain_of(hidden),
                     [&](int64_t begin, int64_t end) { cpu::rms_norm_rows(args, begin, end); });
  return result;
}

RmsNormResult norm_by_composition(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::ScalarType type = compute_type(x);
  const at::Tensor wide = x.to(type);
  const at::Tensor inverse_rms = at::rsqrt(at::mean(wide * wide, {-1}, /*keepdim=*/true) + eps);
  return {(wide * inverse_rms * weight.to(type)).to(x.scalar_type()), inverse_rms.reshape({-1})};
}

at::Tensor backward_by_loops(const at::Tensor* grad_sum, const at::Tensor& grad_output,
                             const at::Tensor& x, const at::Tensor& weight,
                             const at::Tensor& inverse_rms, at::Tensor& weight_grad) {
  const int64_t hidden = x.size(-1);
  at::Tensor grad_x = at::empty_like(x);
  cpu::RmsNormBackward args;
  args.grad_output = grad_output.const_data_ptr<float>();
  args.x = x.const_data_ptr<float>();
  args.weight = weight.const_data_ptr<float>();
  args.inverse_rms = inverse_rms.const_data_ptr<float>();
  args.grad_sum = grad_sum != nullptr ? grad_sum->const_data_ptr<float>() : nullptr;
  args.grad_x = grad_x.data_ptr<float>();
  args.hidden = hidden;
  // Each piece of rows sums its own weight gradient; they join in the order of the pieces.
  const int64_t pieces = cpu::piece_count(rows_of(x), cpu::grain_of(hidden));
  std::vector<float> scratch(static_cast<size_t>(pieces * hidden));
  std::vector<float> partial(static_cast<size_t>(pieces * hidden), 0.0f);
  cpu::parallel_pieces(rows_of(x), pieces, [&](int64_t piece, int64_t begin, int64_t end) {
    cpu::rms_norm_backward_rows(args, partial.data() + piece * hidden,
                                scratch.data() + piece * hidden, begin, end);
  });
  float* total = weight_grad.data_ptr<float>();
  for (int64_t piece = 0; piece < pieces; ++piece) {
    for (int64_t h = 0; h < hidden; ++h)
      total[h] += partial[static_cast<size_t>(piece * hidden + h)];
  }
  return grad_x;
}

at::Tensor backward_by_composition(const at::Tensor& grad_output, const at::Tensor& x,
                                   const at::Tensor& weight, const at::Tensor& inverse_rms,
                                   at::Tensor& weight_grad) {
  const at::ScalarType type = compute_type(x);
  const at::Tensor inverse = inverse_rms.reshape([&] {
    auto sizes = x.sizes().vec();
    sizes.back() = 1;
    return sizes;
  }());
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
  return norm_by_composition(x, weight, eps);
}

at::Tensor rms_norm_backward(const at::Tensor& grad_output, const at::Tensor& x,
                             const at::Tensor& weight, const at::Tensor& inverse_rms,
                             at::Tensor& weight_grad) {
  check_backward(grad_output, x, inverse_rms, weight_grad, "rms_norm_backward");
  if (takes_cpu_loops(x))
    return backward_by_loops(nullptr, grad_output, x, weight, inverse_rms, weight_grad);
  return backward_by_composition(grad_output, x, weight, inverse_rms, weight_grad)
      .to(x.scalar_type());
}

AddRmsNormResult add_rms_norm(const at::Tensor& residual, const at::Tensor& delta,
                              const at::Tensor& weight, double eps) {
  check_forward(residual, weight, "add_rms_norm");
  expect(delta.sizes() == residual.sizes(), "add_rms_norm", "have a delta of the size of residual",
         delta.sizes());
  expect_contiguous(delta, "add_rms_norm");
  if (takes_cpu_loops(residual)) {
    at::Tensor sum = at::empty_like(residual);
    RmsNormResult norm = norm_by_loops(residual, &delta, &sum, weight, eps);
    return {std::move(sum), std::move(norm)};
  }
  at::Tensor sum = residual + delta;
  RmsNormResult norm = norm_by_composition(sum, weight, eps);
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
  // Added before the rounding to bf16, as one pass would.
  return (backward_by_composition(grad_output, sum, weight, inverse_rms, weight_grad) + grad_sum)
      .to(sum.scalar_type());
}

}  // namespace tptrain::kernels
