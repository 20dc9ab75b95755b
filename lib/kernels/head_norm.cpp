// RMSNorm of each head of packed q and k: dispatch to the CPU loops, the CUDA kernels or the ATen
// composition.
#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

void check_norm(const at::Tensor& qkv, const HeadNorm& norm, const AttentionShape& shape,
                const char* function) {
  check_shape(qkv, shape, function);
  for (const at::Tensor* weight : {&norm.q_weight, &norm.k_weight}) {
    expect(weight->dim() == 1 && weight->size(0) == shape.head_dim, function,
           "have weights of the size of a head", weight->sizes());
    expect_contiguous(*weight, function);
  }
}

template <typename T>
cpu::HeadNorm<T> loop_args(const at::Tensor& packed, const HeadNorm& norm,
                           const AttentionShape& shape) {
  cpu::HeadNorm<T> args;
  args.packed = write<T>(packed);
  args.q_weight = read<T>(norm.q_weight);
  args.k_weight = read<T>(norm.k_weight);
  args.width = packed.size(2);
  args.q_heads = shape.heads;
  args.k_heads = shape.kv_heads;
  args.head_dim = shape.head_dim;
  args.eps = norm.eps;
  return args;
}

cuda::HeadNorm kernel_args(const at::Tensor& packed, const HeadNorm& norm,
                           const AttentionShape& shape) {
  return {.element = element_of(packed),
          .packed = packed.mutable_data_ptr(),
          .q_weight = norm.q_weight.const_data_ptr(),
          .k_weight = norm.k_weight.const_data_ptr(),
          .tokens = rows_of(packed),
          .width = packed.size(2),
          .q_heads = shape.heads,
          .k_heads = shape.kv_heads,
          .head_dim = shape.head_dim,
          .eps = static_cast<float>(norm.eps)};
}

/// Whether it took the gradients: heads of unusual sizes are left to the composition.
bool backward_by_cuda(cuda::HeadNorm args, const at::Tensor& input, at::Tensor& q_grad,
                      at::Tensor& k_grad) {
  args.input = input.const_data_ptr();
  if (!cuda::takes_head_norm(args)) return false;
  const int64_t blocks = cuda::head_norm_backward_blocks(args.tokens, args.q_heads + args.k_heads);
  const at::Tensor partial = at::empty({blocks, 2 * args.head_dim}, q_grad.options());
  args.partial = partial.data_ptr<float>();
  args.q_grad = q_grad.data_ptr<float>();
  args.k_grad = k_grad.data_ptr<float>();
  cuda::head_norm_backward(args, cuda::stream_of(input));
  cuda::check_launch("head_rms_norm_backward_");
  return true;
}

/// The heads of q, or of k behind them, in [S, B, ..]: a view [S, B, heads, D].
at::Tensor heads_of(const at::Tensor& packed, int64_t first, int64_t heads, int64_t head_dim) {
  return packed.narrow(2, first * head_dim, heads * head_dim)
      .view({packed.size(0), packed.size(1), heads, head_dim});
}

at::Tensor inverse_rms(const at::Tensor& wide, double eps) {
  return at::rsqrt(at::mean(wide * wide, {-1}, /*keepdim=*/true) + eps);
}

void norm_by_composition(const at::Tensor& rows, const at::Tensor& weight, double eps) {
  const at::ScalarType type = compute_type(rows);
  const at::Tensor wide = rows.to(type);
  rows.copy_(wide * inverse_rms(wide, eps) * weight.to(type));
}

void backward_by_composition(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight,
                             double eps, at::Tensor& weight_grad) {
  const at::ScalarType type = compute_type(x);
  const at::Tensor wide = x.to(type);
  const at::Tensor inverse = inverse_rms(wide, eps);
  const at::Tensor normed = wide * inverse;
  const at::Tensor wide_grad = grad.to(type);
  weight_grad.add_(
      (wide_grad * normed).reshape({-1, x.size(-1)}).sum(0).to(weight_grad.scalar_type()));
  const at::Tensor scaled = wide_grad * weight.to(type);
  grad.copy_(inverse * (scaled - normed * at::mean(scaled * normed, {-1}, /*keepdim=*/true)));
}

}  // namespace

void head_rms_norm_(at::Tensor& qkv, const HeadNorm& norm, const AttentionShape& shape) {
  check_norm(qkv, norm, shape, "head_rms_norm_");
  if (takes_cpu_loops(qkv)) {
    with_element_of(qkv, [&]<typename T>(T) {
      const cpu::HeadNorm<T> args = loop_args<T>(qkv, norm, shape);
      cpu::parallel_rows(rows_of(qkv), cpu::grain_of(args.width), [&](int64_t begin, int64_t end) {
        cpu::head_norm_tokens(args, begin, end);
      });
    });
    return;
  }
  if (takes_cuda_kernels(qkv)) {
    const cuda::HeadNorm args = kernel_args(qkv, norm, shape);
    if (cuda::takes_head_norm(args)) {
      cuda::head_norm(args, cuda::stream_of(qkv));
      cuda::check_launch("head_rms_norm_");
      return;
    }
  }
  norm_by_composition(heads_of(qkv, 0, shape.heads, shape.head_dim), norm.q_weight, norm.eps);
  norm_by_composition(heads_of(qkv, shape.heads, shape.kv_heads, shape.head_dim), norm.k_weight,
                      norm.eps);
}

void head_rms_norm_backward_(at::Tensor& grad_qkv, const at::Tensor& input, const HeadNorm& norm,
                             const AttentionShape& shape, at::Tensor& q_grad, at::Tensor& k_grad) {
  check_norm(grad_qkv, norm, shape, "head_rms_norm_backward_");
  expect(input.dim() == 3 && input.size(2) == (shape.heads + shape.kv_heads) * shape.head_dim &&
             rows_of(input) == rows_of(grad_qkv),
         "head_rms_norm_backward_", "have an input [S, B, (heads + kv_heads) * D]", input.sizes());
  expect(q_grad.numel() == shape.head_dim && k_grad.numel() == shape.head_dim,
         "head_rms_norm_backward_", "have weight gradients of the size of a head", q_grad.sizes());
  expect_contiguous(input, "head_rms_norm_backward_");
  if (takes_cuda_kernels(grad_qkv) &&
      backward_by_cuda(kernel_args(grad_qkv, norm, shape), input, q_grad, k_grad))
    return;
  if (!takes_cpu_loops(grad_qkv)) {
    backward_by_composition(heads_of(grad_qkv, 0, shape.heads, shape.head_dim),
                            heads_of(input, 0, shape.heads, shape.head_dim), norm.q_weight,
                            norm.eps, q_grad);
    backward_by_composition(heads_of(grad_qkv, shape.heads, shape.kv_heads, shape.head_dim),
                            heads_of(input, shape.heads, shape.kv_heads, shape.head_dim),
                            norm.k_weight, norm.eps, k_grad);
    return;
  }
  const int64_t head_dim = shape.head_dim;
  std::vector<float> gradients(static_cast<size_t>(2 * head_dim), 0.0f);
  with_element_of(grad_qkv, [&]<typename T>(T) {
    cpu::HeadNorm<T> args = loop_args<T>(grad_qkv, norm, shape);
    args.input = read<T>(input);
    add_row_sums(rows_of(grad_qkv), args.width, 2 * head_dim, gradients.data(),
                 [&](float* sums, float* scratch, int64_t begin, int64_t end) {
                   cpu::head_norm_backward_tokens(args, sums, scratch, begin, end);
                 });
  });
  float* q_total = write<float>(q_grad);
  float* k_total = write<float>(k_grad);
  for (int64_t d = 0; d < head_dim; ++d) {
    q_total[d] += gradients[static_cast<size_t>(d)];
    k_total[d] += gradients[static_cast<size_t>(head_dim + d)];
  }
}

}  // namespace tptrain::kernels
