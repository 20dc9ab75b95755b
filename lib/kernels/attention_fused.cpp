// Causal attention by the fused kernels that serve bf16 and fp16 on CUDA, forward and backward, and
// which of them a call takes. All of them keep one logsumexp of whole sequences, natural and
// [B, heads, S], so that a forward and its backward may be two kernels': each takes the faster one.
#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/attention_parts.h"
#include "kernels/cuda/attention_race.h"

namespace tptrain::kernels::attention {

namespace {

/// Without dropout neither reads the seed; it must only be a tensor.
at::Tensor no_seed(const at::Tensor& like) {
  return at::empty({}, like.options().dtype(at::kLong));
}

AttentionResult cudnn_forward(const at::Tensor& qkv, const AttentionShape& shape) {
  const Views views = split(qkv, shape);
  const auto result = at::_scaled_dot_product_cudnn_attention(
      views.q, views.k, views.v, /*attn_bias=*/std::nullopt,
      /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, /*is_causal=*/true);
  return {pack_context(std::get<0>(result)),
          std::get<1>(result).view({qkv.size(1), shape.heads, qkv.size(0)})};
}

/// By the graph interface where that is to be had, straight into its place.
Views cudnn_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                     const AttentionResult& forward, at::Tensor& grad_qkv,
                     const AttentionShape& shape) {
  if (cudnn_backward_packs(qkv, shape))
    return cudnn_packed_backward(grad_context, qkv, forward, grad_qkv, shape);
  const Views views = split(qkv, shape);
  const at::Tensor none;
  const int64_t length = qkv.size(0);
  Views gradient;
  std::tie(gradient.q, gradient.k, gradient.v) = at::_scaled_dot_product_cudnn_attention_backward(
      heads_first(grad_context, shape.head_dim), views.q, views.k, views.v,
      heads_first(forward.context, shape.head_dim), forward.logsumexp.unsqueeze(3),
      no_seed(views.q), no_seed(views.q), none, none, none, length, length,
      /*dropout_p=*/0.0, /*is_causal=*/true);
  return gradient;
}

AttentionResult flash_forward(const at::Tensor& qkv, const AttentionShape& shape) {
  const Views views = split(qkv, shape);
  const auto result = at::_scaled_dot_product_flash_attention(
      views.q, views.k, views.v, /*dropout_p=*/0.0, /*is_causal=*/true);
  return {pack_context(std::get<0>(result)), std::get<1>(result)};
}

Views flash_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                     const AttentionResult& forward, at::Tensor& /*grad_qkv*/,
                     const AttentionShape& shape) {
  const Views views = split(qkv, shape);
  const at::Tensor none;
  const int64_t length = qkv.size(0);
  Views gradient;
  std::tie(gradient.q, gradient.k, gradient.v) = at::_scaled_dot_product_flash_attention_backward(
      heads_first(grad_context, shape.head_dim), views.q, views.k, views.v,
      heads_first(forward.context, shape.head_dim), forward.logsumexp, none, none, length, length,
      /*dropout_p=*/0.0,
      /*is_causal=*/true, no_seed(views.q), no_seed(views.q));
  return gradient;
}

/// Of whole sequences. A backward writes into grad_qkv, and returns the parts of that, or returns
/// gradients that lie apart.
struct Contender {
  cuda::FusedAttention which;
  AttentionResult (*forward)(const at::Tensor& qkv, const AttentionShape& shape);
  Views (*backward)(const at::Tensor& grad_context, const at::Tensor& qkv,
                    const AttentionResult& forward, at::Tensor& grad_qkv,
                    const AttentionShape& shape);
};
constexpr Contender kCudnn = {cuda::FusedAttention::cudnn, cudnn_forward, cudnn_backward};
constexpr Contender kFlash = {cuda::FusedAttention::flash, flash_forward, flash_backward};
constexpr Contender kFlash3 = {cuda::FusedAttention::flash3, flash3_forward, flash3_backward};

/// Whether cuDNN serves such heads at all.
bool takes_cudnn(const AttentionShape& shape) {
  return shape.head_dim % 8 == 0 && shape.head_dim <= 128 &&
         !at::globalContext().deterministicAlgorithms();
}

/// The one before stays unless the next is clearly faster.
std::vector<Contender> contenders(const at::Tensor& qkv, const AttentionShape& shape) {
  if (!takes_cudnn(shape)) return {kFlash};
  const auto known = cuda::known_attention();
  if (known == cuda::FusedAttention::flash) return {kFlash};
  if (known == cuda::FusedAttention::flash3) return {kFlash3};
  std::vector<Contender> all = {kCudnn};
  if (!known) all.push_back(kFlash);
  if (!cuda::chosen_attention() && flash3_serves(qkv, shape)) all.push_back(kFlash3);
  return all;
}

/// Which of them serves such tensors on this GPU: the same answer as long as the process lives. The
/// first call of a size may try all (cuda/attention_race.h).
Contender chosen(const at::Tensor& qkv, const AttentionShape& shape, cuda::AttentionPass pass) {
  const std::vector<Contender> all = contenders(qkv, shape);
  if (all.size() == 1) return all.front();
  const cuda::AttentionKey key = {qkv.size(0),
                                  qkv.size(1),
                                  shape.heads,
                                  shape.kv_heads,
                                  shape.head_dim,
                                  static_cast<int64_t>(qkv.scalar_type()),
                                  static_cast<int64_t>(pass)};
  std::vector<cuda::FusedAttention> names;
  for (const Contender& one : all) names.push_back(one.which);
  const auto named = [&](cuda::FusedAttention which) {
    return *std::ranges::find(all, which, &Contender::which);
  };
  AttentionResult done;
  at::Tensor grad_qkv;
  const auto run = [&](cuda::FusedAttention which) {
    if (pass == cuda::AttentionPass::forward) {
      named(which).forward(qkv, shape);
      return;
    }
    if (!done.context.defined()) {
      done = kFlash.forward(qkv, shape);
      grad_qkv = at::empty_like(qkv);
    }
    // What the gradients are of takes no other time.
    named(which).backward(done.context, qkv, done, grad_qkv, shape);
  };
  return named(cuda::faster_attention(key, qkv, names, run));
}

/// Documents go to cuDNN's graph interface alone: at::_cudnn_attention_backward of LibTorch 2.11
/// takes head_dim for the longest one's length (query.size(2) of [T, n, D]) and writes past its sum
/// of dQ (pytorch #186142).
bool documents_by_cudnn(const at::Tensor& qkv, const AttentionShape& shape,
                        const Documents& documents) {
  return takes_cudnn(shape) && cudnn_serves_documents(qkv, shape, documents);
}

}  // namespace

AttentionResult fused_forward(const at::Tensor& qkv, const AttentionShape& shape,
                              const Documents* documents) {
  if (documents == nullptr)
    return chosen(qkv, shape, cuda::AttentionPass::forward).forward(qkv, shape);
  if (documents_by_cudnn(qkv, shape, *documents)) return cudnn_documents(qkv, shape, *documents);
  return flash_documents(split(qkv, shape), *documents);
}

Views fused_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                     const AttentionResult& forward, at::Tensor& grad_qkv,
                     const AttentionShape& shape, const Documents* documents) {
  if (documents == nullptr)
    return chosen(qkv, shape, cuda::AttentionPass::backward)
        .backward(grad_context, qkv, forward, grad_qkv, shape);
  if (documents_by_cudnn(qkv, shape, *documents))
    return cudnn_documents_backward(grad_context, qkv, forward, grad_qkv, shape, *documents);
  return flash_documents_backward(heads_first(grad_context, shape.head_dim), split(qkv, shape),
                                  heads_first(forward.context, shape.head_dim), forward.logsumexp,
                                  *documents);
}

AttentionBackend fused_backend(const at::Tensor& qkv, const AttentionShape& shape,
                               AttentionMask mask) {
  if (shape.head_dim > 128) return {"FlashAttention-2", "cuDNN, which serves head_dim up to 128"};
  if (!takes_cudnn(shape))
    return {"FlashAttention-2", "cuDNN, whose backward is not deterministic"};
  if (mask == AttentionMask::documents) {
    const std::string refusal = cudnn_refuses_documents(qkv, shape);
    if (refusal.empty()) return {"cuDNN", ""};
    return {"FlashAttention-2",
            cat("cuDNN, which does not serve packed documents here: ", refusal)};
  }
  std::vector<const char*> names;
  for (const Contender& one : contenders(qkv, shape)) {
    if (one.which == cuda::FusedAttention::cudnn) names.push_back("cuDNN");
    if (one.which == cuda::FusedAttention::flash) names.push_back("FlashAttention-2");
    if (one.which == cuda::FusedAttention::flash3) names.push_back("FlashAttention-3");
  }
  return {
      cat(join(names, " or "), names.size() > 1 ? ", whichever is faster at the first call" : ""),
      ""};
}

}  // namespace tptrain::kernels::attention
