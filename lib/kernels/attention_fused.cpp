// Causal attention by the fused kernels of LibTorch that serve bf16 and fp16 on CUDA: cuDNN and
// FlashAttention-2, forward and backward, and which of both a call takes.
#include <tuple>

#include "kernels/attention_parts.h"
#include "kernels/cuda/attention_race.h"

namespace tptrain::kernels::attention {

namespace {

/// Without dropout neither reads the seed; it must only be a tensor.
at::Tensor no_seed(const at::Tensor& like) {
  return at::empty({}, like.options().dtype(at::kLong));
}

}  // namespace

AttentionResult cudnn_forward(const Views& views) {
  const auto result = at::_scaled_dot_product_cudnn_attention(
      views.q, views.k, views.v, /*attn_bias=*/std::nullopt,
      /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, /*is_causal=*/true);
  return {pack_context(std::get<0>(result)), std::get<1>(result)};
}

Views cudnn_backward(const at::Tensor& grad, const Views& views, const at::Tensor& context,
                     const at::Tensor& logsumexp) {
  const at::Tensor none;
  const int64_t length = views.q.size(2);
  Views gradient;
  std::tie(gradient.q, gradient.k, gradient.v) = at::_scaled_dot_product_cudnn_attention_backward(
      grad, views.q, views.k, views.v, context, logsumexp, no_seed(views.q), no_seed(views.q), none,
      none, none, length, length,
      /*dropout_p=*/0.0, /*is_causal=*/true);
  return gradient;
}

AttentionResult flash_forward(const Views& views) {
  const auto result = at::_scaled_dot_product_flash_attention(
      views.q, views.k, views.v, /*dropout_p=*/0.0, /*is_causal=*/true);
  return {pack_context(std::get<0>(result)), std::get<1>(result)};
}

Views flash_backward(const at::Tensor& grad, const Views& views, const at::Tensor& context,
                     const at::Tensor& logsumexp) {
  const at::Tensor none;
  const int64_t length = views.q.size(2);
  Views gradient;
  std::tie(gradient.q, gradient.k, gradient.v) = at::_scaled_dot_product_flash_attention_backward(
      grad, views.q, views.k, views.v, context, logsumexp, none, none, length, length,
      /*dropout_p=*/0.0,
      /*is_causal=*/true, no_seed(views.q), no_seed(views.q));
  return gradient;
}

bool cudnn_is_faster(const at::Tensor& qkv, const AttentionShape& shape) {
  const cuda::AttentionKey key = {qkv.size(0),    qkv.size(1),
                                  shape.heads,    shape.kv_heads,
                                  shape.head_dim, static_cast<int64_t>(qkv.scalar_type())};
  const auto run = [&](cuda::FusedAttention which) {
    const Views views = split(qkv, shape);
    const bool cudnn = which == cuda::FusedAttention::cudnn;
    const AttentionResult result = cudnn ? cudnn_forward(views) : flash_forward(views);
    const at::Tensor context = heads_first(result.context, shape.head_dim);
    // What the gradients are of takes no other time.
    cudnn ? cudnn_backward(context, views, context, result.logsumexp)
          : flash_backward(context, views, context, result.logsumexp);
  };
  return cuda::faster_attention(key, qkv, run) == cuda::FusedAttention::cudnn;
}

}  // namespace tptrain::kernels::attention
