// Causal attention with dropout of the probabilities, as a composition: nothing fused draws these
// random numbers. One sequence and kv head after the other; of its query heads so many together as
// keep the probabilities small.
#include <algorithm>
#include <cmath>

#include "kernels/composition.h"
#include "kernels/dropout_heads.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

// Probabilities held at once, where one head alone does not have more: 16 MiB of fp32.
constexpr int64_t kProbabilities = int64_t{1} << 22;

/// [S, B, n * D] of one sequence, by heads: [S, n, D].
at::Tensor heads_of(const at::Tensor& packed, int64_t b, int64_t head_dim) {
  return packed.view({packed.size(0), packed.size(1), packed.size(2) / head_dim, head_dim})
      .select(1, b);
}

/// Some query heads of one kv head, of one sequence.
struct HeadRange {
  int64_t first = 0;  // query head
  int64_t count = 0;
};

at::Tensor wide_heads(const at::Tensor& heads, HeadRange range,
                      at::ScalarType type) {  // [S, n, D] -> [count, S, D]
  return heads.narrow(1, range.first, range.count).transpose(0, 1).to(type).contiguous();
}

std::vector<HeadRange> ranges_of_group(int64_t kv_head, int64_t group, int64_t positions) {
  const int64_t together = std::clamp<int64_t>(kProbabilities / (positions * positions), 1, group);
  std::vector<HeadRange> ranges;
  for (int64_t first = 0; first < group; first += together)
    ranges.push_back({kv_head * group + first, std::min(together, group - first)});
  return ranges;
}

at::Tensor causal_probabilities(const at::Tensor& q, const at::Tensor& k, const at::Tensor& future,
                                double scale) {  // [n, S, D], [S, D] -> [n, S, S]
  const at::Tensor scores = at::matmul(q, k.t()).mul_(scale);
  return at::softmax(scores.masked_fill_(future, -std::numeric_limits<double>::infinity()), -1);
}

/// Drops of [n, S, S] what these heads drop of sequence b.
void drop_(const at::Tensor& probabilities, const Dropout& dropout, int64_t b, HeadRange range) {
  Dropout here = dropout;
  here.first_sample += b;
  here.first_head += range.first;
  dropout_heads_(probabilities.unsqueeze(2), here, /*first_position=*/0);
}

at::Tensor rows_by_head(const at::Tensor& by_head) {  // [n, S, X] -> [n * S, X]
  return by_head.reshape({by_head.size(0) * by_head.size(1), by_head.size(2)});
}

at::Tensor future_of(const at::Tensor& qkv) {  // [S, S] bool
  return at::ones({qkv.size(0), qkv.size(0)}, qkv.options().dtype(at::kBool)).triu_(1);
}

}  // namespace

at::Tensor causal_attention_dropout(const at::Tensor& qkv, const AttentionShape& shape,
                                    const Dropout& dropout) {
  check_shape(qkv, shape, "causal_attention_dropout");
  const int64_t positions = qkv.size(0);
  const int64_t group = shape.heads / shape.kv_heads;
  const at::ScalarType type = compute_type(qkv);
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  const at::Tensor future = future_of(qkv);
  at::Tensor context =
      at::empty({positions, qkv.size(1), shape.heads * shape.head_dim}, qkv.options());
  for (int64_t b = 0; b < qkv.size(1); ++b) {
    const at::Tensor in = heads_of(qkv, b, shape.head_dim);       // [S, heads + 2 * kv_heads, D]
    const at::Tensor out = heads_of(context, b, shape.head_dim);  // [S, heads, D]
    for (int64_t kv = 0; kv < shape.kv_heads; ++kv) {
      const at::Tensor k = in.select(1, shape.heads + kv).to(type);                   // [S, D]
      const at::Tensor v = in.select(1, shape.heads + shape.kv_heads + kv).to(type);  // [S, D]
      for (const HeadRange range : ranges_of_group(kv, group, positions)) {
        const at::Tensor p =
            causal_probabilities(wide_heads(in, range, type), k, future, scale);  // [n, S, S]
        drop_(p, dropout, b, range);
        out.narrow(1, range.first, range.count).copy_(at::matmul(p, v).transpose(0, 1));
      }
    }
  }
  return context;
}

at::Tensor causal_attention_dropout_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                                             const AttentionShape& shape, const Dropout& dropout) {
  check_shape(qkv, shape, "causal_attention_dropout_backward");
  const int64_t positions = qkv.size(0);
  expect(grad_context.dim() == 3 && grad_context.size(0) == positions &&
             grad_context.size(1) == qkv.size(1) &&
             grad_context.size(2) == shape.heads * shape.head_dim,
         "causal_attention_dropout_backward", "have a grad_context [S, B, heads * D]",
         grad_context.sizes());
  expect_contiguous(grad_context, "causal_attention_dropout_backward");
  const int64_t group = shape.heads / shape.kv_heads;
  const at::ScalarType type = compute_type(qkv);
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  const at::Tensor future = future_of(qkv);
  at::Tensor grad_qkv = at::empty_like(qkv);
  for (int64_t b = 0; b < qkv.size(1); ++b) {
    const at::Tensor in = heads_of(qkv, b, shape.head_dim);  // [S, heads + 2 * kv_heads, D]
    const at::Tensor grad_out = heads_of(grad_context, b, shape.head_dim);  // [S, heads, D]
    const at::Tensor out = heads_of(grad_qkv, b, shape.head_dim);           // as in
    for (int64_t kv = 0; kv < shape.kv_heads; ++kv) {
      const int64_t k_head = shape.heads + kv;
      const int64_t v_head = k_head + shape.kv_heads;
      const at::Tensor k = in.select(1, k_head).to(type);  // [S, D]
      const at::Tensor v = in.select(1, v_head).to(type);  // [S, D]
      at::Tensor grad_k = at::zeros_like(k);
      at::Tensor grad_v = at::zeros_like(v);
      for (const HeadRange range : ranges_of_group(kv, group, positions)) {
        const at::Tensor q = wide_heads(in, range, type);                // [n, S, D]
        const at::Tensor grad = wide_heads(grad_out, range, type);       // [n, S, D]
        const at::Tensor p = causal_probabilities(q, k, future, scale);  // [n, S, S]
        // What dropout multiplied by: 0 or 1 / (1 - probability).
        const at::Tensor factor = at::ones_like(p);
        drop_(factor, dropout, b, range);
        grad_v.addmm_(rows_by_head(p * factor).t(), rows_by_head(grad));
        const at::Tensor grad_p = at::matmul(grad, v.t()).mul_(factor);
        const at::Tensor grad_scores =
            at::_softmax_backward_data(grad_p, p, -1, type).mul_(scale);  // [n, S, S]
        out.narrow(1, range.first, range.count).copy_(at::matmul(grad_scores, k).transpose(0, 1));
        grad_k.addmm_(rows_by_head(grad_scores).t(), rows_by_head(q));
      }
      out.select(1, k_head).copy_(grad_k);
      out.select(1, v_head).copy_(grad_v);
    }
  }
  return grad_qkv;
}

}  // namespace tptrain::kernels
