// What the files of attention share: the views of the packed buffer, and what serves them. Private
// to this folder.
#pragma once

#include <cmath>
#include <string>

#include "kernels/composition.h"
#include "kernels/kernels.h"

namespace tptrain::kernels::attention {

struct Views {
  at::Tensor q;  // [B, heads, S, D]
  at::Tensor k;  // [B, kv_heads, S, D]
  at::Tensor v;  // [B, kv_heads, S, D]
};
Views split(const at::Tensor& qkv, const AttentionShape& shape);
at::Tensor heads_first(const at::Tensor& packed, int64_t head_dim);  // [S, B, n D] -> [B, n, S, D]
/// [B, heads, S, D] -> [S, B, heads * D]; a copy, unless the batch is 1 and the backend wrote
/// position after position.
at::Tensor pack_context(const at::Tensor& context);
at::Tensor repeat_over_group(const at::Tensor& kv,
                             int64_t group);  // [B, kv, S, D] -> [B, kv * group, S, D]
at::Tensor sum_over_group(const at::Tensor& per_query_head,
                          int64_t kv_heads);  // [B, kv * group, S, D] -> [B, kv, S, D]
/// Into packed grad_qkv, q and k turned back where they were rotated; `totals` as
/// causal_attention_backward's.
void pack_gradient(const Views& gradient, at::Tensor& grad_qkv, const AttentionShape& shape,
                   const RotaryTable* rotated_by, ColumnTotals* totals);

inline double scale_of(const AttentionShape& shape) {
  return 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
}

// Each serves whole sequences where `documents` is null.

/// The blocked loops of the CPU. logsumexp: [B, heads, S] fp32; of documents those of each, [heads,
/// its length], end to end.
AttentionResult loops_forward(const at::Tensor& packed, const AttentionShape& shape,
                              const Documents* documents);
at::Tensor loops_backward(const at::Tensor& packed_grad, const at::Tensor& packed,
                          const AttentionResult& forward, const AttentionShape& shape,
                          const Documents* documents);

/// Plain ATen, scores in memory. logsumexp: [B, heads, S].
AttentionResult composition_forward(const Views& views, const AttentionShape& shape,
                                    const Documents* documents);
Views composition_backward(const at::Tensor& grad, const Views& views, const at::Tensor& context,
                           const at::Tensor& logsumexp, const AttentionShape& shape,
                           const Documents* documents);

/// CUDA, bf16 and fp16: the fastest of the fused kernels that serve. What logsumexp of documents
/// looks like is each one's own.
AttentionResult fused_forward(const at::Tensor& qkv, const AttentionShape& shape,
                              const Documents* documents);
/// The gradients in their places in grad_qkv, or apart.
Views fused_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                     const AttentionResult& forward, at::Tensor& grad_qkv,
                     const AttentionShape& shape, const Documents* documents);
/// Which it will be; qkv has a few positions that stand for all.
AttentionBackend fused_backend(const at::Tensor& qkv, const AttentionShape& shape,
                               AttentionMask mask);

/// FlashAttention-3 (attention_flash3.cpp), where the program was built with it: CUDA, bf16, whole
/// sequences.
bool flash3_serves(const at::Tensor& qkv, const AttentionShape& shape);
/// logsumexp: [B, heads, S], natural.
AttentionResult flash3_forward(const at::Tensor& qkv, const AttentionShape& shape);
Views flash3_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                      const AttentionResult& forward, at::Tensor& grad_qkv,
                      const AttentionShape& shape);

// By cuDNN's graph interface (attention_cudnn.cpp), where the program was built with it; CUDA,
// bf16.

/// Whether the backward of whole sequences goes straight into the packed buffer. The first call of
/// a size builds it.
bool cudnn_backward_packs(const at::Tensor& qkv, const AttentionShape& shape);
/// logsumexp: [B, heads, S], natural.
Views cudnn_packed_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                            const AttentionResult& forward, at::Tensor& grad_qkv,
                            const AttentionShape& shape);
/// Whether it serves such documents.
bool cudnn_serves_documents(const at::Tensor& qkv, const AttentionShape& shape,
                            const Documents& documents);
/// Why it serves none of such heads and type on this card; empty: it does. Of qkv's sizes nothing
/// is looked at.
std::string cudnn_refuses_documents(const at::Tensor& qkv, const AttentionShape& shape);
/// logsumexp: [T, heads].
AttentionResult cudnn_documents(const at::Tensor& qkv, const AttentionShape& shape,
                                const Documents& documents);
/// Where each of the gradients lies: in its place in grad_qkv, or (k and v in groups) apart.
Views cudnn_documents_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                               const AttentionResult& forward, at::Tensor& grad_qkv,
                               const AttentionShape& shape, const Documents& documents);

/// CUDA, bf16 and fp16, documents only. logsumexp: [heads, T].
AttentionResult flash_documents(const Views& views, const Documents& documents);
Views flash_documents_backward(const at::Tensor& grad, const Views& views,
                               const at::Tensor& context, const at::Tensor& logsumexp,
                               const Documents& documents);
/// CUDA, fp32, documents only. logsumexp: [n, heads, longest padded].
AttentionResult efficient_documents(const Views& views, const AttentionShape& shape,
                                    const Documents& documents);
Views efficient_documents_backward(const at::Tensor& grad, const Views& views,
                                   const at::Tensor& context, const at::Tensor& logsumexp,
                                   const AttentionShape& shape, const Documents& documents);

/// Null, or documents that fit qkv; what lies on the device is not looked at.
void check_documents(const Documents* documents, const at::Tensor& qkv, const char* function);

}  // namespace tptrain::kernels::attention
