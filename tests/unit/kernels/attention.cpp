// Causal attention on the packed buffer against a plain fp64 composition with autograd, and cached
// attention against the full one.
#include "kernels/cuda/cudnn_graph.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels/reference_attention.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

struct Case {
  int64_t positions, batch;
  AttentionShape shape;
};

// Lengths around the block sizes of the CPU code; groups of 1, 2 and 4.
const std::vector<Case> kCases = {
    {1, 1, {1, 1, 8}},    {5, 2, {3, 3, 8}},    {33, 3, {8, 4, 32}},  {64, 1, {4, 1, 16}},
    {130, 2, {4, 1, 64}}, {257, 1, {6, 2, 32}}, {96, 2, {2, 2, 128}}, {300, 1, {4, 2, 24}},
};

}  // namespace

TEST_CASE("causal attention and its gradient match autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Case& c : kCases) {
    for (const Precision precision : precisions()) {
      CAPTURE(c.positions, c.batch, c.shape.heads, c.shape.kv_heads, c.shape.head_dim,
              precision.type);
      const at::Tensor qkv = leaf(normal(
          {c.positions, c.batch, (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim}, 40));
      const at::Tensor grad = normal({c.positions, c.batch, c.shape.heads * c.shape.head_dim}, 41);
      const at::Tensor expected = reference_attention(qkv, c.shape);
      expected.backward(grad);

      const at::Tensor local = on_device(qkv.detach(), precision.type);
      const AttentionResult result = causal_attention(local, c.shape);
      REQUIRE(result.context.sizes() == expected.sizes());
      CHECK(result.context.is_contiguous());
      CHECK(result.context.scalar_type() == precision.type);
      CHECK_CLOSE(result.context, expected, precision.tolerance);

      const at::Tensor grad_qkv =
          causal_attention_backward(on_device(grad, precision.type), local, result, c.shape);
      REQUIRE(grad_qkv.sizes() == qkv.sizes());
      const int64_t q_columns = c.shape.heads * c.shape.head_dim;
      const int64_t kv_columns = c.shape.kv_heads * c.shape.head_dim;
      // Each against its own largest element: a wrong scale of one must not hide behind another.
      CHECK_CLOSE(grad_qkv.narrow(2, 0, q_columns), qkv.grad().narrow(2, 0, q_columns),
                  2 * precision.tolerance);
      CHECK_CLOSE(grad_qkv.narrow(2, q_columns, kv_columns),
                  qkv.grad().narrow(2, q_columns, kv_columns), 2 * precision.tolerance);
      CHECK_CLOSE(grad_qkv.narrow(2, q_columns + kv_columns, kv_columns),
                  qkv.grad().narrow(2, q_columns + kv_columns, kv_columns),
                  2 * precision.tolerance);
    }
  }
}

TEST_CASE("the gradient of what was rotated is that of the rotated, turned back", "[kernels]") {
  at::set_num_threads(1);
  for (const Case& c : kCases) {
    for (const Precision precision : fused_precisions()) {
      CAPTURE(c.positions, c.batch, c.shape.heads, c.shape.kv_heads, c.shape.head_dim,
              precision.type);
      const int64_t heads = c.shape.heads + 2 * c.shape.kv_heads;
      const at::Tensor qkv =
          on_device(normal({c.positions, c.batch, heads * c.shape.head_dim}, 46), precision.type);
      const at::Tensor grad = on_device(
          normal({c.positions, c.batch, c.shape.heads * c.shape.head_dim}, 47), precision.type);
      const RotaryTable table = rotary_table(5, c.positions, c.shape.head_dim, 100.0, device());
      const AttentionResult result = causal_attention(qkv, c.shape);
      at::Tensor expected = causal_attention_backward(grad, qkv, result, c.shape);
      rotate_(expected, table, c.shape.heads + c.shape.kv_heads, c.shape.head_dim,
              Rotation::inverse);
      const at::Tensor received = causal_attention_backward(grad, qkv, result, c.shape, &table);
      CHECK_CLOSE(received, expected, precision.tolerance);
    }
  }
}

TEST_CASE("sums over the rows of a gradient are added in passing, or not at all", "[kernels]") {
  at::set_num_threads(1);
  for (const Case& c : kCases) {
    for (const Precision precision : fused_precisions()) {
      CAPTURE(c.positions, c.batch, c.shape.heads, c.shape.kv_heads, c.shape.head_dim,
              precision.type);
      const int64_t width = (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim;
      const at::Tensor qkv = on_device(normal({c.positions, c.batch, width}, 48), precision.type);
      const at::Tensor grad = on_device(
          normal({c.positions, c.batch, c.shape.heads * c.shape.head_dim}, 49), precision.type);
      const AttentionResult result = causal_attention(qkv, c.shape);
      const at::Tensor expected = causal_attention_backward(grad, qkv, result, c.shape);
      ColumnTotals bias{.totals = on_device(at::ones({width}), at::kFloat)};
      const at::Tensor received =
          causal_attention_backward(grad, qkv, result, c.shape, nullptr, nullptr, &bias);
      CHECK_CLOSE(received, expected, precision.tolerance);
      const at::Tensor sums = received.reshape({-1, width}).to(at::kDouble).sum(0);
      CHECK_CLOSE(bias.totals, bias.added ? sums + 1.0 : at::ones_like(sums), 1e-5);
      // By cuDNN where its gradients are to be packed, since they lie as rows.
      if (attention_backend(qkv, c.shape).name == "cuDNN" && c.positions > 1)
        CHECK(bias.added != cuda::has_cudnn_graphs());
      // What was turned back is packed by another kernel.
      const RotaryTable table = rotary_table(5, c.positions, c.shape.head_dim, 100.0, device());
      ColumnTotals rotated{.totals = on_device(at::ones({width}), at::kFloat)};
      causal_attention_backward(grad, qkv, result, c.shape, &table, nullptr, &rotated);
      CHECK(!rotated.added);
    }
  }
}

TEST_CASE("no position sees the future", "[kernels]") {
  at::set_num_threads(1);
  const AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 16};
  const at::Tensor qkv = normal({200, 1, 8 * 16}, 42).to(device(), at::kFloat);
  at::Tensor changed = qkv.clone();
  changed.narrow(0, 101, 99).fill_(1e3);
  CHECK(same_bits(causal_attention(qkv, shape).context.narrow(0, 0, 101),
                  causal_attention(changed, shape).context.narrow(0, 0, 101)));
}

TEST_CASE("large scores stay finite and NaN reaches the gradient", "[kernels]") {
  at::set_num_threads(1);
  const AttentionShape shape{.heads = 2, .kv_heads = 1, .head_dim = 16};
  at::Tensor qkv = normal({150, 1, 4 * 16}, 43, 100.0).to(device(), at::kFloat);
  const at::Tensor grad = at::ones({150, 1, 32}, qkv.options());
  const AttentionResult large = causal_attention(qkv, shape);
  CHECK_CLOSE(large.context, reference_attention(qkv.cpu().to(at::kDouble), shape), 1e-4);
  CHECK(causal_attention_backward(grad, qkv, large, shape).isfinite().all().item<bool>());
  qkv[70][0][3] = std::numeric_limits<double>::quiet_NaN();  // a query: its own row, nothing before
  const AttentionResult poisoned = causal_attention(qkv, shape);
  CHECK(poisoned.context.narrow(0, 0, 70).isfinite().all().item<bool>());
  CHECK(poisoned.context[70].isnan().any().item<bool>());
  CHECK(causal_attention_backward(grad, qkv, poisoned, shape).isnan().any().item<bool>());
}

TEST_CASE("attention repeats bit for bit", "[kernels]") {
  at::set_num_threads(1);
  const AttentionShape shape{.heads = 8, .kv_heads = 4, .head_dim = 32};
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    CAPTURE(type);
    const at::Tensor qkv = normal({140, 2, 16 * 32}, 44).to(device(), type);
    const at::Tensor grad = normal({140, 2, 8 * 32}, 45).to(device(), type);
    const AttentionResult a = causal_attention(qkv, shape);
    const AttentionResult b = causal_attention(qkv, shape);
    CHECK(same_bits(a.context, b.context));
    // On CUDA gradients may be summed by atomics; deterministic training takes FlashAttention-2.
    if (!device().is_cuda()) {
      CHECK(same_bits(causal_attention_backward(grad, qkv, a, shape),
                      causal_attention_backward(grad, qkv, b, shape)));
    }
  }
}

#ifdef TPTRAIN_TEST_ON_CPU
TEST_CASE("bf16 attention on the CPU is the fp32 one, rounded", "[kernels]") {
  at::set_num_threads(1);
  const AttentionShape shape{.heads = 3, .kv_heads = 1, .head_dim = 24};
  const at::Tensor qkv = on_device(normal({70, 2, 5 * 24}, 49), at::kBFloat16);
  const AttentionResult narrow = causal_attention(qkv, shape);
  const AttentionResult wide = causal_attention(qkv.to(at::kFloat), shape);
  CHECK(same_bits(narrow.context, wide.context.to(at::kBFloat16)));
  CHECK(same_bits(narrow.logsumexp, wide.logsumexp));
}
#endif

TEST_CASE("attention does not depend on the number of threads", "[kernels]") {
  const AttentionShape shape{.heads = 8, .kv_heads = 4, .head_dim = 32};
  const at::Tensor qkv = normal({70, 3, 16 * 32}, 47).to(device(), at::kFloat);
  const at::Tensor grad = normal({70, 3, 8 * 32}, 48).to(device(), at::kFloat);
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    const AttentionResult result = causal_attention(qkv, shape);
    const at::Tensor grad_qkv = causal_attention_backward(grad, qkv, result, shape);
    at::set_num_threads(1);
    return std::vector<at::Tensor>{result.context, grad_qkv};
  };
  const std::vector<at::Tensor> one = run(1);
  const std::vector<at::Tensor> two = run(2);
  CHECK(same_bits(one[0], two[0]));
  if (!device().is_cuda()) CHECK(same_bits(one[1], two[1]));
}

TEST_CASE("cached attention equals the last rows of the full one", "[kernels]") {
  at::set_num_threads(1);
  for (const Case& c : kCases) {
    for (const Precision precision : precisions()) {
      for (const int64_t queries : {int64_t{1}, c.positions / 3, c.positions}) {
        if (queries == 0) continue;
        CAPTURE(c.positions, queries, c.shape.heads, c.shape.kv_heads, precision.type);
        const at::Tensor qkv = normal(
            {c.positions, c.batch, (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim}, 46);
        const at::Tensor local = on_device(qkv, precision.type);
        const int64_t q_columns = c.shape.heads * c.shape.head_dim;
        const int64_t kv_columns = c.shape.kv_heads * c.shape.head_dim;
        const at::Tensor q =
            local.narrow(2, 0, q_columns).narrow(0, c.positions - queries, queries);
        const at::Tensor received =
            cached_attention(q, local.narrow(2, q_columns, kv_columns),
                             local.narrow(2, q_columns + kv_columns, kv_columns), c.shape);
        CHECK_CLOSE(received,
                    reference_attention(qkv, c.shape).narrow(0, c.positions - queries, queries),
                    precision.type == at::kBFloat16 ? 1.5e-2 : precision.tolerance);
      }
    }
  }
}

TEST_CASE("a shape that does not fit the packed buffer is refused", "[kernels]") {
  const at::Tensor qkv = at::zeros({4, 1, 64}, at::TensorOptions(device()).dtype(at::kFloat));
  CHECK(contains(
      message_of([&] { causal_attention(qkv, {.heads = 3, .kv_heads = 2, .head_dim = 8}); }),
      "kv_heads that divide heads"));
  CHECK(contains(
      message_of([&] { causal_attention(qkv, {.heads = 4, .kv_heads = 1, .head_dim = 8}); }),
      "[4, 1, 64]"));
}
