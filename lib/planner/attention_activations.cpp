// Every function here has the name of the one it mirrors.
#include "planner/attention_activations.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "kernels/cpu/loops.h"
#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/flash3.h"

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

// Of those that a backward on Hopper may be given to the most (kernels/attention_fused.cpp): which
// one it is, is tried on the card.
int64_t AttentionActivations::fused_backward_bytes() const {
  using kernels::cuda::CudnnAttention;
  using kernels::cuda::Flash3;
  const CudnnAttention cudnn = {.positions = s_.masked ? s_.longest : s_.positions,
                                .batch = s_.batch,
                                .tokens = s_.masked ? s_.tokens : 0,
                                .heads = s_.heads,
                                .kv_heads = s_.kv_heads,
                                .head_dim = s_.head_dim};
  if (s_.masked) return cudnn.backward_bytes();
  const Flash3 flash3 = {.positions = s_.positions,
                         .batch = s_.batch,
                         .heads = s_.heads,
                         .kv_heads = s_.kv_heads,
                         .head_dim = s_.head_dim};
  constexpr int kHopper = 90;
  const bool may_be_flash3 = kernels::cuda::takes_flash3(flash3, kHopper);
  return std::max(cudnn.backward_bytes(), may_be_flash3 ? flash3.backward_bytes() : 0);
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
    t_.touch(fused_backward_bytes());
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
