// Causal attention in plain ATen, scores in memory, softmax in fp32 or fp64: what serves tensors
// that no fused backend takes, and generation from a cache.
#include <limits>

#include "kernels/attention_parts.h"

namespace tptrain::kernels {

namespace attention {

namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

/// Queries and the keys that they may see.
struct Block {
  int64_t first_query = 0;
  int64_t queries = 0;
  int64_t first_key = 0;
  int64_t keys = 0;
};

/// One for whole sequences. Documents: as many queries as the longest has tokens, with the keys
/// that reach back as far, so that the scores stay those of B sequences of that length (twice).
std::vector<Block> blocks_of(int64_t positions, const Documents* documents) {
  if (documents == nullptr) return {{0, positions, 0, positions}};
  std::vector<Block> blocks;
  for (int64_t first = 0; first < positions; first += documents->longest) {
    const int64_t end = std::min(positions, first + documents->longest);
    const int64_t first_key = std::max<int64_t>(0, first - documents->longest);
    blocks.push_back({first, end - first, first_key, end - first_key});
  }
  return blocks;
}

/// Which document each token belongs to, [T]; on the device, where `ends` is.
at::Tensor document_numbers(const Documents& documents, int64_t positions) {
  return at::bucketize(at::arange(positions, documents.ends.options()), documents.ends,
                       /*out_int32=*/false, /*right=*/true);
}

class Mask {
 public:
  Mask(const Documents* documents, int64_t positions) {
    if (documents != nullptr) numbers_ = document_numbers(*documents, positions);
  }

  /// [queries, keys], true where the key is in the future or in another document.
  at::Tensor hidden(const Block& block, at::Device device) const {
    at::Tensor hidden =
        at::ones({block.queries, block.keys}, at::TensorOptions(device).dtype(at::kBool))
            .triu_(block.first_query - block.first_key + 1);
    if (!numbers_.defined()) return hidden;
    const at::Tensor of_queries = numbers_.narrow(0, block.first_query, block.queries);
    const at::Tensor of_keys = numbers_.narrow(0, block.first_key, block.keys);
    return hidden.logical_or_(of_queries.unsqueeze(1).ne(of_keys.unsqueeze(0)));
  }

 private:
  at::Tensor numbers_;  // [T]; undefined: whole sequences
};

at::Tensor scores_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& hidden,
                     double scale) {  // [B, n, Sq, D], [B, n, Sk, D] -> [B, n, Sq, Sk]
  return at::matmul(q, k.transpose(-2, -1)).mul_(scale).masked_fill_(hidden, kHidden);
}

/// In the type of the arithmetic, keys and values once for each query head.
Views widened(const Views& views, const AttentionShape& shape) {
  const at::ScalarType type = compute_type(views.q);
  const int64_t group = shape.heads / shape.kv_heads;
  return {views.q.to(type), repeat_over_group(views.k, group).to(type),
          repeat_over_group(views.v, group).to(type)};
}

}  // namespace

AttentionResult composition_forward(const Views& views, const AttentionShape& shape,
                                    const Documents* documents) {
  const auto [q, k, v] = widened(views, shape);
  const Mask mask(documents, q.size(2));
  std::vector<at::Tensor> contexts, logsumexps;
  for (const Block& block : blocks_of(q.size(2), documents)) {
    const at::Tensor scores = scores_of(q.narrow(2, block.first_query, block.queries),
                                        k.narrow(2, block.first_key, block.keys),
                                        mask.hidden(block, q.device()), scale_of(shape));
    logsumexps.push_back(at::logsumexp(scores, {-1}));  // [B, heads, queries]
    const at::Tensor probabilities = at::exp(scores - logsumexps.back().unsqueeze(-1));
    contexts.push_back(at::matmul(probabilities, v.narrow(2, block.first_key, block.keys)));
  }
  return {pack_context(at::cat(contexts, 2)).to(views.q.scalar_type()), at::cat(logsumexps, 2)};
}

Views composition_backward(const at::Tensor& grad, const Views& views, const at::Tensor& context,
                           const at::Tensor& logsumexp, const AttentionShape& shape,
                           const Documents* documents) {
  const auto [q, k, v] = widened(views, shape);
  const at::Tensor wide_grad = grad.to(q.scalar_type());
  const at::Tensor row_dot =
      (wide_grad * context.to(q.scalar_type())).sum(-1, /*keepdim=*/true);  // [B, heads, S, 1]
  const Mask mask(documents, q.size(2));
  const Views sums = {at::empty_like(q), at::zeros_like(k), at::zeros_like(v)};
  for (const Block& block : blocks_of(q.size(2), documents)) {
    const auto queries = [&](const at::Tensor& t) {
      return t.narrow(2, block.first_query, block.queries);
    };
    const auto keys = [&](const at::Tensor& t) { return t.narrow(2, block.first_key, block.keys); };
    const at::Tensor scores = scores_of(queries(q), keys(k), mask.hidden(block, q.device()),
                                        scale_of(shape));  // [B, heads, queries, keys]
    const at::Tensor p = at::exp(scores - queries(logsumexp).unsqueeze(-1));
    const at::Tensor grad_p = at::matmul(queries(wide_grad), keys(v).transpose(-2, -1));
    const at::Tensor grad_scores = (grad_p - queries(row_dot)) * p * scale_of(shape);
    queries(sums.q).copy_(at::matmul(grad_scores, keys(k)));
    keys(sums.k).add_(at::matmul(grad_scores.transpose(-2, -1), queries(q)));
    keys(sums.v).add_(at::matmul(p.transpose(-2, -1), queries(wide_grad)));
  }
  return {sums.q, sum_over_group(sums.k, shape.kv_heads), sum_over_group(sums.v, shape.kv_heads)};
}

}  // namespace attention

at::Tensor cached_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                            const AttentionShape& shape) {
  expect(q.dim() == 3 && q.size(2) == shape.heads * shape.head_dim &&
             shape.heads % shape.kv_heads == 0,
         "cached_attention", "be [Sq, B, heads * D], kv_heads dividing heads", q.sizes());
  expect(keys.dim() == 3 && keys.size(2) == shape.kv_heads * shape.head_dim &&
             keys.sizes() == values.sizes() && keys.size(1) == q.size(1) &&
             keys.size(0) >= q.size(0),
         "cached_attention", "have keys and values [Sk, B, kv_heads * D], Sk >= Sq", keys.sizes());
  const int64_t queries = q.size(0);
  const int64_t batch = q.size(1);
  const int64_t group = shape.heads / shape.kv_heads;
  const at::ScalarType type = compute_type(q);
  // The query heads of a group are rows of one product with their keys: nothing of the cache is
  // copied head by head.
  const at::Tensor grouped =
      q.reshape({queries, batch, shape.kv_heads, group, shape.head_dim})
          .permute({1, 2, 3, 0, 4})
          .reshape({batch, shape.kv_heads, group * queries, shape.head_dim});  // [B, kv, g * Sq, D]
  const at::Tensor k =
      keys.reshape({keys.size(0), batch, shape.kv_heads, shape.head_dim}).permute({1, 2, 0, 3});
  const at::Tensor v =
      values.reshape({keys.size(0), batch, shape.kv_heads, shape.head_dim}).permute({1, 2, 0, 3});
  at::Tensor scores = at::matmul(grouped, k.transpose(-2, -1))
                          .to(type)
                          .mul_(attention::scale_of(shape));  // [B, kv, g * Sq, Sk]
  if (queries > 1) {
    const at::Tensor future = at::ones({queries, keys.size(0)}, scores.options().dtype(at::kBool))
                                  .triu_(keys.size(0) - queries + 1);
    scores.masked_fill_(future.repeat({group, 1}), -std::numeric_limits<double>::infinity());
  }
  const at::Tensor context =
      at::matmul(at::softmax(scores, -1).to(q.scalar_type()), v);  // [B, kv, g * Sq, D]
  return context.view({batch, shape.kv_heads, group, queries, shape.head_dim})
      .permute({3, 0, 1, 2, 4})
      .reshape({queries, batch, shape.heads * shape.head_dim});
}

}  // namespace tptrain::kernels
