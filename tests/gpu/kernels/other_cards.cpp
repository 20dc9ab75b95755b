// What the kernels choose by the card: each card's choices, taken on the one that is there, and the
// fused attentions beside each other.
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <string>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/flash3.h"
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
  CHECK(attention_backend(qkv, kShape).name ==
        (cuda::has_flash3() ? "cuDNN or FlashAttention-3, whichever is faster at the first call"
                            : "cuDNN"));
}

// Lengths that no tile divides; heads of one and of several queries.
TEST_CASE("FlashAttention-3 agrees with fp32, with a backward or forward of another as well",
          "[kernels]") {
  if (!cuda::has_flash3() || cuda::capability() != 90) {
    WARN("this program was built without FlashAttention-3, or this is no Hopper");
    return;
  }
  struct Case {
    int64_t positions, batch;
    AttentionShape shape;
  };
  const FusedAttention all[] = {FusedAttention::flash3, FusedAttention::cudnn,
                                FusedAttention::flash};
  for (const Case& c : {Case{2, 1, {1, 1, 64}}, Case{200, 3, {6, 6, 64}}, Case{333, 2, {14, 2, 64}},
                        Case{129, 2, {3, 3, 128}}, Case{1000, 1, {8, 2, 128}}}) {
    CAPTURE(c.positions, c.batch, c.shape.heads, c.shape.kv_heads, c.shape.head_dim);
    const int64_t of_q = c.shape.heads * c.shape.head_dim;
    const int64_t of_kv = c.shape.kv_heads * c.shape.head_dim;
    const at::Tensor qkv = random({c.positions, c.batch, of_q + 2 * of_kv}, 5, at::kBFloat16);
    const at::Tensor grad = random({c.positions, c.batch, of_q}, 6, at::kBFloat16);
    const at::Tensor qkv32 = qkv.to(at::kFloat);
    const AttentionResult forward32 = causal_attention(qkv32, c.shape);
    const at::Tensor expected =
        causal_attention_backward(grad.to(at::kFloat), qkv32, forward32, c.shape);
    for (const FusedAttention first : all) {
      for (const FusedAttention second : all) {
        if (first != FusedAttention::flash3 && second != FusedAttention::flash3) continue;
        CAPTURE(static_cast<int>(first), static_cast<int>(second));
        const AttentionResult forward = [&] {
          const TakenFor card(kH200, first);
          return causal_attention(qkv, c.shape);
        }();
        CHECK_CLOSE(forward.context, forward32.context, 1.2e-2);
        const TakenFor card(kH200, second);
        const at::Tensor received = causal_attention_backward(grad, qkv, forward, c.shape);
        CHECK_CLOSE(received.narrow(2, 0, of_q), expected.narrow(2, 0, of_q), 1.2e-2);
        CHECK_CLOSE(received.narrow(2, of_q, of_kv), expected.narrow(2, of_q, of_kv), 1.2e-2);
        CHECK_CLOSE(received.narrow(2, of_q + of_kv, of_kv),
                    expected.narrow(2, of_q + of_kv, of_kv), 1.2e-2);
      }
    }
  }
}

TEST_CASE("FlashAttention-3 in a captured graph attends to what is there at the replay",
          "[kernels]") {
  if (!cuda::has_flash3() || cuda::capability() != 90) {
    WARN("this program was built without FlashAttention-3, or this is no Hopper");
    return;
  }
  const c10::cuda::CUDAStreamGuard guard(at::cuda::getStreamFromPool());
  const TakenFor card(kH200, FusedAttention::flash3);
  const at::Tensor qkv = random({384, 2, 18 * 64}, 7, at::kBFloat16);
  const at::Tensor grad = random({384, 2, 14 * 64}, 8, at::kBFloat16);
  attend(qkv, grad);  // what the first call sets up
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  const Attended replayed = attend(qkv, grad);
  graph.capture_end();
  for (uint64_t seed = 9; seed < 12; ++seed) {
    qkv.copy_(random(qkv.sizes(), seed, at::kBFloat16));
    graph.replay();
    const Attended eager = attend(qkv, grad);
    CHECK(at::equal(replayed.context, eager.context));
    CHECK_CLOSE(replayed.gradient, eager.gradient, 1e-2);  // a sum by atomics
  }
}

// What the graph interface is for is the place of the gradient; its numbers are those of before. dQ
// is a sum by atomics, which no two calls add in one order.
TEST_CASE("a gradient that cuDNN writes into the packed buffer is LibTorch's", "[kernels]") {
  if (!cuda::has_cudnn_graphs()) {
    WARN("this program was built without cuDNN's graph interface");
    return;
  }
  const TakenFor card(kH200, FusedAttention::cudnn);
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

// What plan counts by (CudnnAttention::backward_bytes), against what cuDNN asks for.
TEST_CASE("cuDNN's backward takes the memory that forecasts count", "[kernels]") {
  if (!cuda::has_cudnn_graphs() || cuda::capability() / 10 != 9) {
    WARN("this program was built without cuDNN's graph interface, or this is no Hopper");
    return;
  }
  for (const cuda::CudnnAttention& attention :
       {cuda::CudnnAttention{
            .positions = 1024, .batch = 8, .heads = 12, .kv_heads = 12, .head_dim = 64},
        cuda::CudnnAttention{
            .positions = 1024, .batch = 2, .heads = 8, .kv_heads = 8, .head_dim = 128},
        cuda::CudnnAttention{
            .positions = 2048, .batch = 4, .heads = 14, .kv_heads = 2, .head_dim = 64},
        cuda::CudnnAttention{
            .positions = 4096, .batch = 1, .heads = 32, .kv_heads = 8, .head_dim = 128}}) {
    CAPTURE(attention.positions, attention.heads, attention.kv_heads, attention.head_dim);
    const cuda::CudnnAnswer& answer = cuda::cudnn_graph(attention, cuda::CudnnPass::backward);
    INFO(answer.refusal);
    REQUIRE(answer.graph != nullptr);
    constexpr int64_t kAlignment = 1024;  // the engine's buffers begin at round addresses
    const int64_t asked = answer.graph->workspace_bytes();
    CHECK(asked <= attention.backward_bytes() + kAlignment);
    CHECK(attention.backward_bytes() - asked <= attention.backward_bytes() / 50);
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
