// Causal attention with grouped query heads on the packed qkv buffer: which backend serves which
// tensor, and the views it gets.
//
// - CUDA bf16 and fp16: cuDNN; FlashAttention-2 where deterministic algorithms are on, since
// cuDNN's backward uses atomics.
// - CUDA fp32: memory-efficient attention, keys and values repeated over their group.
// - CPU fp32 and bf16: the blocked loops of cpu/attention.cpp in fp32 (bf16 is widened as a whole
// before and rounded after), two to three
//   times ATen's flash attention for the CPU at head_dim 32.
// - Anything else, and a single position (cuDNN refuses it): plain composition, softmax in fp32 or
// fp64.
#include <cmath>
#include <tuple>

#include "kernels/composition.h"
#include "kernels/cpu/loops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/kernels.h"

namespace tptrain::kernels {

namespace {

struct Views {
  at::Tensor q;  // [B, heads, S, D]
  at::Tensor k;  // [B, kv_heads, S, D]
  at::Tensor v;  // [B, kv_heads, S, D]
};

at::Tensor heads_first(const at::Tensor& packed,
                       int64_t head_dim) {  // [S, B, n * D] -> [B, n, S, D]
  return packed.view({packed.size(0), packed.size(1), packed.size(2) / head_dim, head_dim})
      .permute({1, 2, 0, 3});
}

Views split(const at::Tensor& qkv, const AttentionShape& shape) {
  const at::Tensor all = heads_first(qkv, shape.head_dim);
  return {all.narrow(1, 0, shape.heads), all.narrow(1, shape.heads, shape.kv_heads),
          all.narrow(1, shape.heads + shape.kv_heads, shape.kv_heads)};
}

/// [B, heads, S, D] -> [S, B, heads * D]; a copy, unless the batch is 1 and the backend wrote
/// position after position.
at::Tensor pack_context(const at::Tensor& context) {
  return context.permute({2, 0, 1, 3})
      .reshape({context.size(2), context.size(0), context.size(1) * context.size(3)})
      .contiguous();
}

at::Tensor repeat_over_group(const at::Tensor& kv,
                             int64_t group) {  // [B, kv, S, D] -> [B, kv * group, S, D]
  if (group == 1) return kv;
  return kv.unsqueeze(2)
      .expand({kv.size(0), kv.size(1), group, kv.size(2), kv.size(3)})
      .reshape({kv.size(0), kv.size(1) * group, kv.size(2), kv.size(3)});
}

at::Tensor sum_over_group(const at::Tensor& per_query_head,
                          int64_t kv_heads) {  // [B, kv * group, S, D] -> [B, kv, S, D]
  if (per_query_head.size(1) == kv_heads) return per_query_head;
  return per_query_head.unflatten(1, {kv_heads, per_query_head.size(1) / kv_heads}).sum(2);
}

/// Into packed grad_qkv, q and k turned back where they were rotated.
void pack_gradient(const Views& gradient, at::Tensor& grad_qkv, const AttentionShape& shape,
                   const RotaryTable* rotated_by) {
  const auto fits = [&](const at::Tensor& heads) {
    return heads.scalar_type() == grad_qkv.scalar_type() && heads.stride(3) == 1;
  };
  if (takes_cuda_kernels(grad_qkv) && shape.head_dim % 2 == 0 && fits(gradient.q) &&
      fits(gradient.k) && fits(gradient.v)) {
    const auto strided = [](const at::Tensor& heads) {  // [B, n, S, D]
      return cuda::StridedHeads{.data = heads.const_data_ptr(),
                                .position = heads.stride(2),
                                .batch = heads.stride(0),
                                .head = heads.stride(1)};
    };
    cuda::pack_heads(
        {.element = element_of(grad_qkv),
         .q = strided(gradient.q),
         .k = strided(gradient.k),
         .v = strided(gradient.v),
         .packed = grad_qkv.mutable_data_ptr(),
         .rotation =
             rotated_by != nullptr ? rotation_of(*rotated_by, Rotation::inverse) : cuda::Rotation{},
         .positions = grad_qkv.size(0),
         .batch = grad_qkv.size(1),
         .heads = shape.heads,
         .kv_heads = shape.kv_heads,
         .head_dim = shape.head_dim},
        cuda::stream_of(grad_qkv));
    cuda::check_launch("causal_attention_backward");
    return;
  }
  const Views out = split(grad_qkv, shape);
  out.q.copy_(gradient.q);
  out.k.copy_(gradient.k);
  out.v.copy_(gradient.v);
  if (rotated_by != nullptr)
    rotate_(grad_qkv, *rotated_by, shape.heads + shape.kv_heads, shape.head_dim, Rotation::inverse);
}

enum class Backend { cpu_loops, cudnn, cuda_flash, cuda_efficient, composition };

Backend backend_for(const at::Tensor& qkv, const AttentionShape& shape) {
  if (takes_cpu_loops(qkv)) return Backend::cpu_loops;
  if (!qkv.is_cuda() || qkv.size(0) == 1) return Backend::composition;
  const bool half = qkv.scalar_type() == at::kBFloat16 || qkv.scalar_type() == at::kHalf;
  if (half && shape.head_dim % 8 == 0 && shape.head_dim <= 128) {
    return at::globalContext().deterministicAlgorithms() ? Backend::cuda_flash : Backend::cudnn;
  }
  if (half && shape.head_dim % 8 == 0 && shape.head_dim <= 256) return Backend::cuda_flash;
  if (qkv.scalar_type() == at::kFloat && shape.head_dim % 4 == 0) return Backend::cuda_efficient;
  return Backend::composition;
}

double scale_of(const AttentionShape& shape) {
  return 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
}

cpu::Attention loop_arguments(const at::Tensor& qkv, const AttentionShape& shape) {
  cpu::Attention args;
  args.positions = qkv.size(0);
  args.batch = qkv.size(1);
  args.heads = shape.heads;
  args.kv_heads = shape.kv_heads;
  args.head_dim = shape.head_dim;
  args.qkv = qkv.const_data_ptr<float>();
  return args;
}

AttentionResult loops_forward(const at::Tensor& packed, const AttentionShape& shape) {
  const at::Tensor qkv = packed.to(at::kFloat);
  AttentionResult result{
      at::empty({qkv.size(0), qkv.size(1), shape.heads * shape.head_dim}, qkv.options()),
      at::empty({qkv.size(1), shape.heads, qkv.size(0)}, qkv.options())};
  cpu::Attention args = loop_arguments(qkv, shape);
  args.context = result.context.data_ptr<float>();
  args.logsumexp = result.logsumexp.data_ptr<float>();
  const int64_t tasks = args.batch * args.kv_heads;
  const int64_t pieces = cpu::piece_count(tasks, 1);
  const int64_t scratch_size = cpu::attention_scratch(args);
  const at::Tensor scratch = at::empty({pieces * scratch_size}, qkv.options());
  float* scratch_data = scratch.data_ptr<float>();
  cpu::parallel_pieces(tasks, pieces, [&](int64_t piece, int64_t begin, int64_t end) {
    cpu::attention_tasks(args, scratch_data + piece * scratch_size, begin, end);
  });
  result.context = result.context.to(packed.scalar_type());
  return result;
}

at::Tensor loops_backward(const at::Tensor& packed_grad, const at::Tensor& packed,
                          const AttentionResult& forward, const AttentionShape& shape) {
  const at::Tensor qkv = packed.to(at::kFloat);
  const at::Tensor context = forward.context.to(at::kFloat);
  const at::Tensor grad_context = packed_grad.to(at::kFloat);
  at::Tensor grad_qkv = at::empty_like(qkv);
  cpu::Attention args = loop_arguments(qkv, shape);
  args.context = const_cast<float*>(context.const_data_ptr<float>());  // backward only reads it
  args.logsumexp = const_cast<float*>(forward.logsumexp.const_data_ptr<float>());  // and this
  args.grad_context = grad_context.const_data_ptr<float>();
  args.grad_qkv = grad_qkv.data_ptr<float>();
  const int64_t tasks = args.batch * args.kv_heads;
  const int64_t pieces = cpu::piece_count(tasks, 1);
  const int64_t scratch_size = cpu::attention_backward_scratch(args);
  const at::Tensor scratch = at::empty({pieces * scratch_size}, qkv.options());
  float* scratch_data = scratch.data_ptr<float>();
  cpu::parallel_pieces(tasks, pieces, [&](int64_t piece, int64_t begin, int64_t end) {
    cpu::attention_backward_tasks(args, scratch_data + piece * scratch_size, begin, end);
  });
  return grad_qkv.to(packed.scalar_type());
}

/// Scores with future keys at -inf: query i of the last `queries` positions sees keys up to keys -
/// queries + i.
at::Tensor causal_scores(const at::Tensor& q, const at::Tensor& k,
                         double scale) {  // [B, n, Sq, D], [B, n, Sk, D] -> [B, n, Sq, Sk]
  at::Tensor scores = at::matmul(q, k.transpose(-2, -1)).mul_(scale);
  const int64_t queries = scores.size(-2);
  const int64_t keys = scores.size(-1);
  if (queries > 1) {
    const at::Tensor future =
        at::ones({queries, keys}, scores.options().dtype(at::kBool)).triu_(keys - queries + 1);
    scores.masked_fill_(future, -std::numeric_limits<double>::infinity());
  }
  return scores;
}

AttentionResult composition_forward(const Views& views, const AttentionShape& shape) {
  const at::ScalarType type = compute_type(views.q);
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor scores =
      causal_scores(views.q.to(type), repeat_over_group(views.k, group).to(type), scale_of(shape));
  const at::Tensor logsumexp = at::logsumexp(scores, {-1});                    // [B, heads, S]
  const at::Tensor probabilities = at::exp(scores - logsumexp.unsqueeze(-1));  // [B, heads, S, S]
  const at::Tensor context =
      at::matmul(probabilities, repeat_over_group(views.v, group).to(type));  // [B, heads, S, D]
  return {pack_context(context).to(views.q.scalar_type()), logsumexp};
}

Views composition_backward(const at::Tensor& grad, const Views& views, const at::Tensor& context,
                           const at::Tensor& logsumexp, const AttentionShape& shape) {
  const at::ScalarType type = compute_type(views.q);
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor q = views.q.to(type);
  const at::Tensor k = repeat_over_group(views.k, group).to(type);
  const at::Tensor v = repeat_over_group(views.v, group).to(type);
  const at::Tensor wide_grad = grad.to(type);
  const at::Tensor p =
      at::exp(causal_scores(q, k, scale_of(shape)) - logsumexp.unsqueeze(-1));  // [B, heads, S, S]
  const at::Tensor row_dot =
      (wide_grad * context.to(type)).sum(-1, /*keepdim=*/true);  // [B, heads, S, 1]
  const at::Tensor grad_scores =
      (at::matmul(wide_grad, v.transpose(-2, -1)) - row_dot) * p * scale_of(shape);
  return {at::matmul(grad_scores, k),
          sum_over_group(at::matmul(grad_scores.transpose(-2, -1), q), shape.kv_heads),
          sum_over_group(at::matmul(p.transpose(-2, -1), wide_grad), shape.kv_heads)};
}

}  // namespace

AttentionResult causal_attention(const at::Tensor& qkv, const AttentionShape& shape) {
  check_shape(qkv, shape, "causal_attention");
  const Views views = split(qkv, shape);
  const int64_t group = shape.heads / shape.kv_heads;
  switch (backend_for(qkv, shape)) {
    case Backend::cpu_loops:
      return loops_forward(qkv, shape);
    case Backend::cudnn: {
      const auto result = at::_scaled_dot_product_cudnn_attention(
          views.q, views.k, views.v, /*attn_bias=*/std::nullopt,
          /*compute_log_sumexp=*/true, /*dropout_p=*/0.0, /*is_causal=*/true);
      return {pack_context(std::get<0>(result)), std::get<1>(result)};
    }
    case Backend::cuda_flash: {
      const auto result = at::_scaled_dot_product_flash_attention(
          views.q, views.k, views.v, /*dropout_p=*/0.0, /*is_causal=*/true);
      return {pack_context(std::get<0>(result)), std::get<1>(result)};
    }
    case Backend::cuda_efficient: {
      const auto result = at::_scaled_dot_product_efficient_attention(
          views.q, repeat_over_group(views.k, group), repeat_over_group(views.v, group),
          /*attn_bias=*/std::nullopt, /*compute_log_sumexp=*/true,
          /*dropout_p=*/0.0, /*is_causal=*/true);
      return {pack_context(std::get<0>(result)), std::get<1>(result)};
    }
    case Backend::composition:
      break;
  }
  return composition_forward(views, shape);
}

at::Tensor causal_attention_backward(const at::Tensor& grad_context, const at::Tensor& qkv,
                                     const AttentionResult& forward, const AttentionShape& shape,
                                     const RotaryTable* rotated_by) {
  check_shape(qkv, shape, "causal_attention_backward");
  expect(grad_context.sizes() == forward.context.sizes(), "causal_attention_backward",
         "have a grad_context of the size of context", grad_context.sizes());
  expect_contiguous(grad_context, "causal_attention_backward");
  expect_contiguous(forward.context, "causal_attention_backward");
  const Views views = split(qkv, shape);
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor grad = heads_first(grad_context, shape.head_dim);
  const at::Tensor context = heads_first(forward.context, shape.head_dim);
  const Backend backend = backend_for(qkv, shape);
  if (backend == Backend::cpu_loops) {
    at::Tensor grad_qkv = loops_backward(grad_context, qkv, forward, shape);
    if (rotated_by != nullptr)
      rotate_(grad_qkv, *rotated_by, shape.heads + shape.kv_heads, shape.head_dim,
              Rotation::inverse);
    return grad_qkv;
  }
  at::Tensor grad_qkv = at::empty_like(qkv);
  // Without dropout no backend reads the seed; it must only be a tensor where the backend expects
  // one.
  const auto no_seed = [&] { return at::empty({}, qkv.options().dtype(at::kLong)); };
  Views gradient;
  switch (backend) {
    case Backend::cudnn: {
      const at::Tensor none;
      std::tie(gradient.q, gradient.k, gradient.v) =
          at::_scaled_dot_product_cudnn_attention_backward(
              grad, views.q, views.k, views.v, context, forward.logsumexp, no_seed(), no_seed(),
              none, none, none, qkv.size(0), qkv.size(0),
              /*dropout_p=*/0.0, /*is_causal=*/true);
      break;
    }
    case Backend::cuda_flash: {
      const at::Tensor none;
      std::tie(gradient.q, gradient.k, gradient.v) =
          at::_scaled_dot_product_flash_attention_backward(
              grad, views.q, views.k, views.v, context, forward.logsumexp, none, none, qkv.size(0),
              qkv.size(0), /*dropout_p=*/0.0,
              /*is_causal=*/true, no_seed(), no_seed());
      break;
    }
    case Backend::cuda_efficient: {
      const at::Tensor none;
      const auto [dq, dk, dv, dbias] = at::_scaled_dot_product_efficient_attention_backward(
          grad, views.q, repeat_over_group(views.k, group), repeat_over_group(views.v, group), none,
          context, forward.logsumexp, no_seed(), no_seed(), /*dropout_p=*/0.0,
          {true, true, true, false}, /*is_causal=*/true);
      gradient = {dq, sum_over_group(dk, shape.kv_heads), sum_over_group(dv, shape.kv_heads)};
      break;
    }
    case Backend::cpu_loops:
    case Backend::composition:
      gradient = composition_backward(grad, views, context, forward.logsumexp, shape);
      break;
  }
  pack_gradient(gradient, grad_qkv, shape, rotated_by);
  return grad_qkv;
}

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
                          .mul_(scale_of(shape));  // [B, kv, g * Sq, Sk]
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

AttentionBackend attention_backend(const at::Tensor& qkv, const AttentionShape& shape) {
  const bool half = qkv.scalar_type() == at::kBFloat16 || qkv.scalar_type() == at::kHalf;
  switch (backend_for(qkv, shape)) {
    case Backend::cpu_loops:
      return {"blocked loops of the CPU", ""};
    case Backend::cudnn:
      return {"cuDNN", ""};
    case Backend::cuda_flash:
      return {"FlashAttention-2",
              at::globalContext().deterministicAlgorithms() && shape.head_dim <= 128
                  ? "cuDNN, whose backward is not deterministic"
                  : "cuDNN, which serves head_dim up to 128"};
    case Backend::cuda_efficient:
      return {"memory-efficient attention", "cuDNN, which serves bf16 only"};
    case Backend::composition:
      break;
  }
  if (!qkv.is_cuda()) return {"plain ATen", ""};
  return {"plain ATen, scores in memory",
          cat("a fused kernel, which needs head_dim to be a multiple of ", half ? 8 : 4,
              half ? " and at most 256" : "")};
}

}  // namespace tptrain::kernels
