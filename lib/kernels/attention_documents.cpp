// Causal attention of documents on CUDA: FlashAttention-2 and memory-efficient attention, which
// find the documents by their ends on the device. Neither looks at them on the host, so a captured
// graph serves whatever documents the buffer of ends holds at its replay.
#include <algorithm>
#include <tuple>

#include "kernels/attention_parts.h"

namespace tptrain::kernels::attention {

namespace {

/// What the kernels take for the longest document. Not 1, at which FlashAttention-2 takes each
/// entry of ends for a document of exactly one token.
int64_t longest_of(const Documents& documents, const at::Tensor& heads) {
  return std::clamp<int64_t>(documents.longest, 2, heads.size(2));
}

at::Tensor rows_of_heads(const at::Tensor& heads) {  // [1, n, T, D] -> [T, n, D], a view
  return heads.squeeze(0).transpose(0, 1);
}
at::Tensor heads_of_rows(const at::Tensor& rows) {  // and back
  return rows.transpose(0, 1).unsqueeze(0);
}

constexpr int64_t kCausalFromTopLeft = 1;  // sdp::CustomMaskType, which has no public header

/// Of the keys in backward. More of them sum dQ by atomics, in scratch memory of the number of
/// documents times the longest.
constexpr int64_t kOneSplit = 1;

/// Without dropout no backend reads the seed; it must only be a tensor.
at::Tensor no_seed(const Views& views) { return at::empty({}, views.q.options().dtype(at::kLong)); }

}  // namespace

AttentionResult flash_documents(const Views& views, const Documents& documents) {
  const int64_t longest = longest_of(documents, views.q);
  const auto result = at::_flash_attention_forward(
      rows_of_heads(views.q), rows_of_heads(views.k), rows_of_heads(views.v), documents.ends,
      documents.ends, longest, longest, /*dropout_p=*/0.0, /*is_causal=*/true,
      /*return_debug_mask=*/false);
  return {pack_context(heads_of_rows(std::get<0>(result))), std::get<1>(result)};
}

Views flash_documents_backward(const at::Tensor& grad, const Views& views,
                               const at::Tensor& context, const at::Tensor& logsumexp,
                               const Documents& documents) {
  const int64_t longest = longest_of(documents, views.q);
  const auto [dq, dk, dv] = at::_flash_attention_backward(
      rows_of_heads(grad), rows_of_heads(views.q), rows_of_heads(views.k), rows_of_heads(views.v),
      rows_of_heads(context), logsumexp, documents.ends, documents.ends, longest, longest,
      /*dropout_p=*/0.0, /*is_causal=*/true, no_seed(views), no_seed(views));
  return {heads_of_rows(dq), heads_of_rows(dk), heads_of_rows(dv)};
}

AttentionResult efficient_documents(const Views& views, const AttentionShape& shape,
                                    const Documents& documents) {
  const int64_t longest = longest_of(documents, views.q);
  const int64_t group = shape.heads / shape.kv_heads;
  const auto result = at::_efficient_attention_forward(
      views.q.transpose(1, 2), repeat_over_group(views.k, group).transpose(1, 2),
      repeat_over_group(views.v, group).transpose(1, 2), /*bias=*/std::nullopt, documents.ends,
      documents.ends, longest, longest, /*dropout_p=*/0.0, kCausalFromTopLeft,
      /*compute_log_sumexp=*/true);
  return {pack_context(std::get<0>(result).transpose(1, 2)), std::get<1>(result)};
}

Views efficient_documents_backward(const at::Tensor& grad, const Views& views,
                                   const at::Tensor& context, const at::Tensor& logsumexp,
                                   const AttentionShape& shape, const Documents& documents) {
  const int64_t longest = longest_of(documents, views.q);
  const int64_t group = shape.heads / shape.kv_heads;
  const auto [dq, dk, dv, dbias] = at::_efficient_attention_backward(
      grad.transpose(1, 2), views.q.transpose(1, 2),
      repeat_over_group(views.k, group).transpose(1, 2),
      repeat_over_group(views.v, group).transpose(1, 2), /*bias=*/std::nullopt,
      context.transpose(1, 2), documents.ends, documents.ends, longest, longest, logsumexp,
      /*dropout_p=*/0.0, no_seed(views), no_seed(views), kCausalFromTopLeft,
      /*bias_requires_grad=*/false, /*scale=*/std::nullopt, kOneSplit);
  return {dq.transpose(1, 2), sum_over_group(dk.transpose(1, 2), shape.kv_heads),
          sum_over_group(dv.transpose(1, 2), shape.kv_heads)};
}

}  // namespace tptrain::kernels::attention
