// What the kernels choose by the card: each card's choices, taken on the one that is there, and the
// two fused attentions beside each other.
#include <string>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/properties.h"
#include "kernels/fp8.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;
using cuda::FusedAttention;
using cuda::TakenFor;

namespace {

constexpr cuda::Properties kA100 = {108, 163 << 10, 164 << 10, 80};
constexpr cuda::Properties kL40s = {142, 99 << 10, 100 << 10, 89};
constexpr cuda::Properties kH200 = {132, 227 << 10, 228 << 10, 90};

constexpr AttentionShape kShape = {.heads = 14, .kv_heads = 2, .head_dim = 64};

struct Attended {
  at::Tensor context;
  at::Tensor gradient;
};

Attended attend(const at::Tensor& qkv, const at::Tensor& grad) {
  const AttentionResult forward = causal_attention(qkv, kShape);
  return {forward.context, causal_attention_backward(grad, qkv, forward, kShape)};
}

at::Tensor random(at::IntArrayRef sizes, uint64_t seed, at::ScalarType type) {
  return on_device(normal(sizes, seed), type);
}

}  // namespace

TEST_CASE("cuDNN, FlashAttention-2 and the one that wins their race agree with fp32", "[kernels]") {
  constexpr int64_t kLength = 384;
  constexpr int64_t kBatch = 2;
  const at::Tensor qkv = random(
      {kLength, kBatch, (kShape.heads + 2 * kShape.kv_heads) * kShape.head_dim}, 1, at::kBFloat16);
  const at::Tensor grad =
      random({kLength, kBatch, kShape.heads * kShape.head_dim}, 2, at::kBFloat16);
  const Attended expected = attend(qkv.to(at::kFloat), grad.to(at::kFloat));
  const auto check = [&](const std::string& name) {
    CAPTURE(name);
    const Attended got = attend(qkv, grad);
    CHECK_CLOSE(got.context, expected.context, 1.2e-2);
    CHECK_CLOSE(got.gradient, expected.gradient, 1.2e-2);
    return got;
  };
  {
    const TakenFor card(kA100, FusedAttention::cudnn);
    CHECK(attention_backend(qkv, kShape).name == "cuDNN");
    check("cuDNN");
  }
  {
    const TakenFor card(kA100, FusedAttention::flash);
    CHECK(attention_backend(qkv, kShape).name == "FlashAttention-2");
    CHECK(attention_backend(qkv, kShape).slower_than.empty());
    check("FlashAttention-2");
  }
  {
    const TakenFor card(kA100);
    CHECK(attention_backend(qkv, kShape).name ==
          "cuDNN or FlashAttention-2, whichever is faster at the first call");
    const Attended first = check("the faster one");
    // Tried once: the forward of later calls is of the same kernel, and so of the same bits.
    const Attended again = attend(qkv, grad);
    CHECK(at::equal(first.context, again.context));
  }
  const TakenFor card(kH200);
  CHECK(attention_backend(qkv, kShape).name == "cuDNN");
}

// What the graph interface is for is the place of the gradient; its numbers are those of before. dQ
// is a sum by atomics, which no two calls add in one order.
TEST_CASE("a gradient that cuDNN writes into the packed buffer is LibTorch's", "[kernels]") {
  if (!cuda::has_cudnn_graphs()) {
    WARN("this program was built without cuDNN's graph interface");
    return;
  }
  const TakenFor card(kH200);
  constexpr int64_t kLength = 384, kBatch = 3, kDim = 64;
  for (const AttentionShape shape : {AttentionShape{14, 2, kDim}, AttentionShape{6, 6, kDim}}) {
    CAPTURE(shape.heads, shape.kv_heads);
    const int64_t all = shape.heads + 2 * shape.kv_heads;
    const at::Tensor qkv = random({kLength, kBatch, all * kDim}, 3, at::kBFloat16);
    const at::Tensor grad = random({kLength, kBatch, shape.heads * kDim}, 4, at::kBFloat16);
    const AttentionResult forward = causal_attention(qkv, shape);
    const auto heads = [&](const at::Tensor& packed, int64_t first, int64_t count) {
      return packed.view({kLength, kBatch, -1, kDim}).permute({1, 2, 0, 3}).narrow(1, first, count);
    };
    const at::Tensor seed = at::empty({}, qkv.options().dtype(at::kLong)), none;
    const auto [dq, dk, dv] = at::_scaled_dot_product_cudnn_attention_backward(
        heads(grad, 0, shape.heads), heads(qkv, 0, shape.heads),
        heads(qkv, shape.heads, shape.kv_heads),
        heads(qkv, shape.heads + shape.kv_heads, shape.kv_heads),
        heads(forward.context, 0, shape.heads), forward.logsumexp.unsqueeze(3), seed, seed, none,
        none, none, kLength, kLength, /*dropout_p=*/0.0, /*is_causal=*/true);
    const at::Tensor received = causal_attention_backward(grad, qkv, forward, shape);
    CHECK(at::equal(heads(received, shape.heads, shape.kv_heads), dk));
    CHECK(at::equal(heads(received, shape.heads + shape.kv_heads, shape.kv_heads), dv));
    CHECK_CLOSE(heads(received, 0, shape.heads), dq, 1e-2);
  }
}

TEST_CASE("rows of norms too long for a card's shared memory are read again instead", "[kernels]") {
  struct Case {
    int64_t columns;
    at::ScalarType type;
  };
  for (const Case& of : {Case{7168, at::kFloat}, Case{7168, at::kBFloat16}, Case{14336, at::kFloat},
                         Case{14336, at::kBFloat16}}) {
    const at::Tensor x = random({6, of.columns}, 3, of.type);
    const at::Tensor grad = random({6, of.columns}, 4, of.type);
    const at::Tensor weight = random({of.columns}, 5, of.type);
    const at::Tensor bias = random({of.columns}, 6, of.type);
    const auto run = [&] {
      const LayerNormResult forward = layer_norm(x, weight, bias, 1e-5);
      at::Tensor weight_grad = at::zeros({of.columns}, x.options().dtype(at::kFloat));
      at::Tensor bias_grad = at::zeros_like(weight_grad);
      const at::Tensor grad_x =
          layer_norm_backward(grad, x, weight, forward.statistics, weight_grad, bias_grad);
      return std::vector<at::Tensor>{forward.output, grad_x, weight_grad, bias_grad};
    };
    const std::vector<at::Tensor> native = run();
    for (const cuda::Properties& properties : {kA100, kL40s}) {
      CAPTURE(of.columns, of.type, properties.capability);
      const TakenFor card(properties);
      const std::vector<at::Tensor> got = run();
      const double tolerance = of.type == at::kFloat ? 2e-6 : 6e-3;
      for (size_t i = 0; i < got.size(); ++i) CHECK_CLOSE(got[i], native[i], tolerance);
    }
  }
}

TEST_CASE("FP8 is multiplied from capability 8.9 on", "[kernels]") {
  {
    const TakenFor card(kA100);
    CHECK_FALSE(multiplies_fp8(device()));
  }
  const TakenFor card(kL40s);
  CHECK(multiplies_fp8(device()));
}
