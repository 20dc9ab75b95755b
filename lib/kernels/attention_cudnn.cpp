// Causal attention by cuDNN's graph interface (cuda/cudnn_graph.h): documents, forward and
// backward, and the backward of whole sequences, whose gradient goes straight into the packed
// buffer. The forward of whole sequences is LibTorch's call: the same engine, the same bits.
#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "kernels/attention_parts.h"
#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/documents.h"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::attention {

namespace {

cuda::CudnnAttention of_sequences(const at::Tensor& qkv, const AttentionShape& shape) {
  return {.positions = qkv.size(0),
          .batch = qkv.size(1),
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim};
}
cuda::CudnnAttention of_documents(int64_t tokens, int64_t entries, int64_t longest,
                                  const AttentionShape& shape) {
  // Not 1, which is another case for cuDNN.
  return {.positions = std::max<int64_t>(std::min(longest, tokens), 2),
          .batch = entries,
          .tokens = tokens,
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim};
}
cuda::CudnnAttention of_documents(const at::Tensor& qkv, const AttentionShape& shape,
                                  const Documents& documents) {
  return of_documents(qkv.size(0), documents.ends.numel() - 1, documents.longest, shape);
}

/// What no graph has to be built for; null: nothing.
const char* obstacle(const at::Tensor& qkv, const AttentionShape& shape) {
  if (!cuda::has_cudnn_graphs()) return "this program was built without its graph interface";
  if (cuda::chosen_attention() == cuda::FusedAttention::flash) return "FlashAttention-2 was chosen";
  if (cuda::capability() / 10 != 9) return "it has not been tried on this card";
  if (qkv.scalar_type() != at::kBFloat16) return "they are not bf16";
  // Of another head_dim its memory would grow with documents times the longest.
  if (shape.head_dim % 16 != 0) return "head_dim is not a multiple of 16";
  return nullptr;
}

/// Of either pass: both read one logsumexp. Empty: none.
std::string refusal_of(const cuda::CudnnAttention& attention) {
  const std::string& forward = cuda::cudnn_graph(attention, cuda::CudnnPass::forward).refusal;
  if (!forward.empty()) return forward;
  return cuda::cudnn_graph(attention, cuda::CudnnPass::backward).refusal;
}

/// Where the documents lie, in memory of its own.
class Rows {
 public:
  Rows(const cuda::CudnnAttention& a, const Documents& documents) {
    const int64_t stride = (a.batch + 1 + 31) / 32 * 32;  // cuDNN reads from multiples of 16 bytes
    memory_ = at::empty({5, stride}, documents.ends.options());
    int32_t* first = memory_.mutable_data_ptr<int32_t>();
    const auto row = [&](int64_t i) { return first + i * stride; };
    cuda::document_rows({.ends = documents.ends.const_data_ptr<int32_t>(),
                         .documents = a.batch,
                         .lengths = row(0),
                         .first = {row(1), row(2), row(3), row(4)},
                         .width = {a.qkv_width(), a.kv_width(), a.context_width(), a.heads}},
                        cuda::stream_of(documents.ends));
    cuda::check_launch("causal_attention");
    documents_ = {.lengths = row(0),
                  .in_qkv = row(1),
                  .in_kv = row(2),
                  .in_context = row(3),
                  .in_logsumexp = row(4)};
  }
  const cuda::CudnnDocuments& documents() const { return documents_; }

 private:
  at::Tensor memory_;
  cuda::CudnnDocuments documents_;
};

void run(const cuda::CudnnGraph& graph, const cuda::CudnnTensors& tensors, const at::Tensor& on) {
  const at::Tensor workspace = at::empty({graph.workspace_bytes()}, on.options().dtype(at::kByte));
  graph.run(tensors, workspace.mutable_data_ptr());
}

/// The three parts of packed rows of heads.
std::array<void*, 3> parts_of(const at::Tensor& packed, const AttentionShape& shape) {
  auto* first = static_cast<at::BFloat16*>(packed.mutable_data_ptr());
  return {first, first + shape.heads * shape.head_dim,
          first + (shape.heads + shape.kv_heads) * shape.head_dim};
}

/// k and v [T, kv_heads * D] each, one after the other; a copy.
at::Tensor kv_apart(const at::Tensor& qkv, const AttentionShape& shape) {
  return qkv.narrow(2, shape.heads * shape.head_dim, 2 * shape.kv_heads * shape.head_dim)
      .view({qkv.size(0), 2, shape.kv_heads * shape.head_dim})
      .transpose(0, 1)
      .contiguous();
}
/// One of them as [1, kv_heads, T, D].
at::Tensor heads_of(const at::Tensor& apart, int64_t which, const AttentionShape& shape) {
  return apart.select(0, which)
      .view({1, apart.size(1), shape.kv_heads, shape.head_dim})
      .transpose(1, 2);
}

}  // namespace

bool cudnn_backward_packs(const at::Tensor& qkv, const AttentionShape& shape) {
  return cuda::has_cudnn_graphs() && qkv.scalar_type() == at::kBFloat16 &&
         cuda::cudnn_graph(of_sequences(qkv, shape), cuda::CudnnPass::backward).graph != nullptr;
}

Views cudnn_packed_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                            const AttentionResult& forward, at::Tensor& grad_qkv,
                            const AttentionShape& shape) {
  const auto [q, k, v] = parts_of(qkv, shape);
  const auto [grad_q, grad_k, grad_v] = parts_of(grad_qkv, shape);
  run(*cuda::cudnn_graph(of_sequences(qkv, shape), cuda::CudnnPass::backward).graph,
      {.q = q,
       .k = k,
       .v = v,
       .context = forward.context.mutable_data_ptr(),
       .logsumexp = forward.logsumexp.mutable_data_ptr<float>(),
       .grad_context = grad_context.const_data_ptr(),
       .grad_q = grad_q,
       .grad_k = grad_k,
       .grad_v = grad_v},
      qkv);
  return split(grad_qkv, shape);
}

bool cudnn_serves_documents(const at::Tensor& qkv, const AttentionShape& shape,
                            const Documents& documents) {
  // Rows of the packed buffer begin at elements that int32 counts.
  return obstacle(qkv, shape) == nullptr && qkv.numel() <= std::numeric_limits<int32_t>::max() &&
         refusal_of(of_documents(qkv, shape, documents)).empty();
}

std::string cudnn_refuses_documents(const at::Tensor& qkv, const AttentionShape& shape) {
  if (const char* why = obstacle(qkv, shape)) return why;
  constexpr int64_t kTokens = 1024, kEntries = 16;  // they decide nothing
  return refusal_of(of_documents(kTokens, kEntries, kTokens, shape));
}

AttentionResult cudnn_documents(const at::Tensor& qkv, const AttentionShape& shape,
                                const Documents& documents) {
  const cuda::CudnnAttention attention = of_documents(qkv, shape, documents);
  const Rows rows(attention, documents);
  AttentionResult result = {
      .context = at::empty({qkv.size(0), 1, attention.context_width()}, qkv.options()),
      .logsumexp = at::empty({qkv.size(0), shape.heads}, qkv.options().dtype(at::kFloat))};
  const auto [q, k, v] = parts_of(qkv, shape);
  run(*cuda::cudnn_graph(attention, cuda::CudnnPass::forward).graph,
      {.q = q,
       .k = k,
       .v = v,
       .context = result.context.mutable_data_ptr(),
       .logsumexp = result.logsumexp.mutable_data_ptr<float>(),
       .documents = rows.documents()},
      qkv);
  return result;
}

Views cudnn_documents_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                               const AttentionResult& forward, at::Tensor& grad_qkv,
                               const AttentionShape& shape, const Documents& documents) {
  const cuda::CudnnAttention attention = of_documents(qkv, shape, documents);
  const Rows rows(attention, documents);
  const auto [q, k, v] = parts_of(qkv, shape);
  const auto [grad_q, grad_k, grad_v] = parts_of(grad_qkv, shape);
  cuda::CudnnTensors tensors = {.q = q,
                                .k = k,
                                .v = v,
                                .context = forward.context.mutable_data_ptr(),
                                .logsumexp = forward.logsumexp.mutable_data_ptr<float>(),
                                .documents = rows.documents(),
                                .grad_context = grad_context.const_data_ptr(),
                                .grad_q = grad_q,
                                .grad_k = grad_k,
                                .grad_v = grad_v};
  at::Tensor kv, grad_kv;
  if (attention.kv_apart()) {
    kv = kv_apart(qkv, shape);
    grad_kv = at::empty_like(kv);
    tensors.k = kv.select(0, 0).const_data_ptr();
    tensors.v = kv.select(0, 1).const_data_ptr();
    tensors.grad_k = grad_kv.select(0, 0).mutable_data_ptr();
    tensors.grad_v = grad_kv.select(0, 1).mutable_data_ptr();
  }
  run(*cuda::cudnn_graph(attention, cuda::CudnnPass::backward).graph, tensors, qkv);
  Views gradient = split(grad_qkv, shape);
  if (grad_kv.defined()) {
    gradient.k = heads_of(grad_kv, 0, shape);
    gradient.v = heads_of(grad_kv, 1, shape);
  }
  return gradient;
}

}  // namespace tptrain::kernels::attention
