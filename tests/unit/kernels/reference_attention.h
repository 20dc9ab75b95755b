// Textbook attention in fp64, scores in memory: differentiable, what the kernels are held to.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "kernels/kernels.h"

namespace tptrain::testing {

/// Beside causality; undefined: none.
struct AttentionChanges {
  at::Tensor hidden = {};   // bool [S, S]: keys that a query does not see
  at::Tensor factors = {};  // [B, heads, S, S] of the probabilities
};

/// [S, B, (heads + 2 kv) D] -> [S, B, heads * D], softmax(q k^T / sqrt(D)) v.
inline at::Tensor reference_attention(const at::Tensor& qkv, const kernels::AttentionShape& shape,
                                      const AttentionChanges& changes = {}) {
  const int64_t positions = qkv.size(0);
  const int64_t batch = qkv.size(1);
  const at::Tensor heads =
      qkv.view({positions, batch, shape.heads + 2 * shape.kv_heads, shape.head_dim})
          .permute({1, 2, 0, 3});
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor q = heads.narrow(1, 0, shape.heads);
  const at::Tensor k = heads.narrow(1, shape.heads, shape.kv_heads).repeat_interleave(group, 1);
  const at::Tensor v =
      heads.narrow(1, shape.heads + shape.kv_heads, shape.kv_heads).repeat_interleave(group, 1);
  at::Tensor hidden = at::ones({positions, positions}, at::kBool).triu(1);
  if (changes.hidden.defined()) hidden = hidden.logical_or(changes.hidden);
  const at::Tensor scores =
      (at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(shape.head_dim)))
          .masked_fill(hidden, -std::numeric_limits<double>::infinity());
  at::Tensor probabilities = at::softmax(scores, -1);
  if (changes.factors.defined()) probabilities = probabilities * changes.factors;
  return at::matmul(probabilities, v)
      .permute({2, 0, 1, 3})
      .reshape({positions, batch, shape.heads * shape.head_dim});
}

}  // namespace tptrain::testing
