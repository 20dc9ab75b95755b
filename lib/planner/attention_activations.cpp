// Every function here has the name of the one it mirrors.
#include "planner/attention_activations.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/cpu/loops.h"

namespace tptrain::planner {
namespace {

constexpr int64_t kTokensOfDocument = 128;  // on average, where they are masked: an assumption

}  // namespace

// --- kernels/attention.cpp, attention_dropout.cpp
int64_t AttentionActivations::scratch_bytes(bool backward) const {
  kernels::cpu::Attention args;
  args.positions = s_.longest;
  args.batch = s_.batch;
  args.heads = s_.heads;
  args.kv_heads = s_.kv_heads;
  args.head_dim = s_.head_dim;
  const int64_t pieces =
      std::min(options_.cpu_threads, s_.tokens / s_.longest * s_.kv_heads);  // at least
  return pieces * kFp32 *
         (backward ? kernels::cpu::attention_backward_scratch(args)
                   : kernels::cpu::attention_scratch(args));
}

AttentionActivations::DropoutSizes AttentionActivations::dropout_sizes() const {
  constexpr int64_t kProbabilities = int64_t{1} << 22;
  const int64_t square = s_.positions * s_.positions;
  const int64_t together = std::clamp<int64_t>(kProbabilities / square, 1, s_.heads / s_.kv_heads);
  const int64_t one_head = s_.positions * s_.head_dim * kFp32;
  return {.future = square,
          .matrix = together * square * kFp32,
          .rows = together * one_head,
          .one_head = one_head};
}

int64_t AttentionActivations::widened(int64_t width) const {
  return options_.bf16 ? s_.tokens * width * kFp32 : 0;
}

Attended AttentionActivations::attend() {
  if (options_.training.attention_dropout > 0) {
    const DropoutSizes d = dropout_sizes();
    Buffer context = make_.kept(model::LayerTensor::context);
    const int64_t kv = options_.bf16 ? 2 * d.one_head : 0;
    t_.touch(d.future, kv, d.rows, 2 * d.matrix);
    return {.context = std::move(context), .logsumexp = {}};
  }
  if (s_.on_gpu) {
    Buffer context = make_.kept(model::LayerTensor::context);
    return {.context = std::move(context), .logsumexp = t_.make(logsumexp_bytes())};
  }
  const Buffer wide = t_.make(widened(s_.qkv));
  Buffer context = t_.make(s_.tokens * s_.context * kFp32);
  Buffer logsumexp = make_.kept(model::LayerTensor::logsumexp);
  t_.touch(scratch_bytes(/*backward=*/false));
  if (options_.bf16) context = make_.kept(model::LayerTensor::context);
  return {.context = std::move(context), .logsumexp = std::move(logsumexp)};
}

// On GPUs. Of masked documents in fp32 memory-efficient attention keeps as many rows for each
// document as the longest might have, and there is room for a power of two of them.
int64_t AttentionActivations::logsumexp_bytes() const {
  if (!s_.masked || options_.bf16) return s_.bytes(model::LayerTensor::logsumexp);
  const auto entries = std::bit_ceil(static_cast<uint64_t>(s_.tokens / kTokensOfDocument + 1));
  const int64_t rows = (s_.longest + 31) / 32 * 32;
  return static_cast<int64_t>(entries - 1) * s_.heads * rows * kFp32;
}

// The gradient of q in fp32, a number a row, and, of heads in groups, the gradients of k and v for
// each query head. Of documents the first has the rows of the packed buffer, there is room for the
// others in fp32, and k, v and their gradients lie apart (kernels/attention_cudnn.cpp).
int64_t AttentionActivations::cudnn_workspace_bytes() const {
  const int64_t grouped = s_.heads == s_.kv_heads ? 0 : 1;
  const int64_t of_query_heads = grouped * 2 * s_.context;
  if (!s_.masked)
    return s_.tokens * ((s_.context + s_.heads) * kFp32 + of_query_heads * s_.element);
  const int64_t apart = grouped * 2 * (s_.qkv - s_.context);
  return s_.tokens * ((s_.qkv + s_.heads + of_query_heads) * kFp32 + apart * s_.element);
}

Buffer AttentionActivations::attend_backward() {
  if (options_.training.attention_dropout > 0) {
    const DropoutSizes d = dropout_sizes();
    Buffer grad_qkv = make_.columns(s_.qkv);
    const int64_t kv = options_.bf16 ? 2 * d.one_head : 0;
    t_.touch(d.future, kv, 2 * d.one_head, 3 * d.rows, 4 * d.matrix);
    return grad_qkv;
  }
  if (s_.on_gpu && options_.bf16) {
    Buffer grad_qkv = make_.columns(s_.qkv);
    t_.touch(cudnn_workspace_bytes());
    return grad_qkv;
  }
  if (s_.on_gpu) {
    // The gradients of q, k and v apart; workspace: that of q, and a number a row.
    const Buffer apart = make_.columns(s_.qkv);
    // Of documents 128 rows more for each.
    const int64_t rows = s_.masked ? s_.tokens + s_.tokens / kTokensOfDocument * 128 : s_.tokens;
    t_.touch(rows * (s_.context + s_.heads) * kFp32);
    return make_.columns(s_.qkv);
  }
  const Buffer wide = t_.make(widened(s_.qkv) + 2 * widened(s_.context));
  Buffer grad_qkv = t_.make(s_.tokens * s_.qkv * kFp32);
  t_.touch(scratch_bytes(/*backward=*/true));
  if (options_.bf16) grad_qkv = make_.columns(s_.qkv);
  return grad_qkv;
}

}  // namespace tptrain::planner
