// Causal attention with grouped query heads on the packed qkv buffer: which backend serves which
// tensor, and the views it gets.
//
// - CUDA bf16 and fp16: cuDNN or FlashAttention-2, whichever is faster on this GPU
// (attention_fused.cpp); the latter where deterministic algorithms are on, since cuDNN's backward
// uses atomics. Documents take cuDNN on Hopper, where the program was built with its graph
// interface (attention_cudnn.cpp).
// - CUDA fp32: memory-efficient attention, keys and values repeated over their group.
// - CPU fp32 and bf16: the blocked loops (attention_loops.cpp), two to three times ATen's flash
// attention for the CPU at head_dim 32.
// - Anything else, and a single position (cuDNN refuses it): plain composition
// (attention_composition.cpp).
// All of them take documents; the fused ones of LibTorch in attention_documents.cpp.
#include <tuple>

#include "kernels/attention_parts.h"

namespace tptrain::kernels {

namespace {

using namespace attention;

enum class Backend { cpu_loops, cuda_fused, cuda_efficient, composition };

bool is_half(const at::Tensor& qkv) {
  return qkv.scalar_type() == at::kBFloat16 || qkv.scalar_type() == at::kHalf;
}

Backend backend_for(const at::Tensor& qkv, const AttentionShape& shape) {
  if (takes_cpu_loops(qkv)) return Backend::cpu_loops;
  if (!qkv.is_cuda() || qkv.size(0) == 1) return Backend::composition;
  if (is_half(qkv) && shape.head_dim % 8 == 0 && shape.head_dim <= 256) return Backend::cuda_fused;
  if (qkv.scalar_type() == at::kFloat && shape.head_dim % 4 == 0) return Backend::cuda_efficient;
  return Backend::composition;
}

}  // namespace

AttentionResult causal_attention(const at::Tensor& qkv, const AttentionShape& shape,
                                 const Documents* documents) {
  check_shape(qkv, shape, "causal_attention");
  check_documents(documents, qkv, "causal_attention");
  const Views views = split(qkv, shape);
  const int64_t group = shape.heads / shape.kv_heads;
  switch (backend_for(qkv, shape)) {
    case Backend::cpu_loops:
      return loops_forward(qkv, shape, documents);
    case Backend::cuda_fused:
      return fused_forward(qkv, shape, documents);
    case Backend::cuda_efficient: {
      if (documents != nullptr) return efficient_documents(views, shape, *documents);
      const auto result = at::_scaled_dot_product_efficient_attention(
          views.q, repeat_over_group(views.k, group), repeat_over_group(views.v, group),
          /*attn_bias=*/std::nullopt, /*compute_log_sumexp=*/true,
          /*dropout_p=*/0.0, /*is_causal=*/true);
      return {pack_context(std::get<0>(result)), std::get<1>(result)};
    }
    case Backend::composition:
      break;
  }
  return composition_forward(views, shape, documents);
}

at::Tensor causal_attention_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                                     const AttentionResult& forward, const AttentionShape& shape,
                                     const RotaryTable* rotated_by, const Documents* documents,
                                     ColumnTotals* totals) {
  check_shape(qkv, shape, "causal_attention_backward");
  check_documents(documents, qkv, "causal_attention_backward");
  expect(grad_context.sizes() == forward.context.sizes(), "causal_attention_backward",
         "have a grad_context of the size of context", grad_context.sizes());
  expect_contiguous(grad_context, "causal_attention_backward");
  expect_contiguous(forward.context, "causal_attention_backward");
  const Views views = split(qkv, shape);
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor grad = heads_first(grad_context, shape.head_dim);
  const at::Tensor context = heads_first(forward.context, shape.head_dim);
  const Backend backend = backend_for(qkv, shape);
  if (backend == Backend::cpu_loops) {
    at::Tensor grad_qkv = loops_backward(grad_context, qkv, forward, shape, documents);
    if (rotated_by != nullptr)
      rotate_(grad_qkv, *rotated_by, shape.heads + shape.kv_heads, shape.head_dim,
              Rotation::inverse);
    return grad_qkv;
  }
  at::Tensor grad_qkv = at::empty_like(qkv);
  Views gradient;
  switch (backend) {
    case Backend::cuda_fused:
      gradient = fused_backward(grad_context, qkv, forward, grad_qkv, shape, documents);
      break;
    case Backend::cuda_efficient: {
      if (documents != nullptr) {
        gradient = efficient_documents_backward(grad, views, context, forward.logsumexp, shape,
                                                *documents);
        break;
      }
      const at::Tensor none;
      // Without dropout the seed is not read; it must only be a tensor.
      const auto no_seed = [&] { return at::empty({}, qkv.options().dtype(at::kLong)); };
      const auto [dq, dk, dv, dbias] = at::_scaled_dot_product_efficient_attention_backward(
          grad, views.q, repeat_over_group(views.k, group), repeat_over_group(views.v, group), none,
          context, forward.logsumexp, no_seed(), no_seed(), /*dropout_p=*/0.0,
          {true, true, true, false}, /*is_causal=*/true);
      gradient = {dq, sum_over_group(dk, shape.kv_heads), sum_over_group(dv, shape.kv_heads)};
      break;
    }
    case Backend::cpu_loops:
    case Backend::composition:
      gradient = composition_backward(grad, views, context, forward.logsumexp, shape, documents);
      break;
  }
  if (gradient.k.is_alias_of(grad_qkv)) {
    if (rotated_by != nullptr)
      rotate_(grad_qkv, *rotated_by, shape.heads + shape.kv_heads, shape.head_dim,
              Rotation::inverse);
    return grad_qkv;
  }
  pack_gradient(gradient, grad_qkv, shape, rotated_by, totals);
  return grad_qkv;
}

AttentionBackend attention_backend(const at::Tensor& qkv, const AttentionShape& shape,
                                   AttentionMask mask) {
  switch (backend_for(qkv, shape)) {
    case Backend::cpu_loops:
      return {"blocked loops of the CPU", ""};
    case Backend::cuda_fused:
      return fused_backend(qkv, shape, mask);
    case Backend::cuda_efficient:
      return {"memory-efficient attention", "cuDNN, which serves bf16 only"};
    case Backend::composition:
      break;
  }
  if (!qkv.is_cuda()) return {"plain ATen", ""};
  return {"plain ATen, scores in memory",
          cat("a fused kernel, which needs head_dim to be a multiple of ", is_half(qkv) ? 8 : 4,
              is_half(qkv) ? " and at most 256" : "")};
}

}  // namespace tptrain::kernels
