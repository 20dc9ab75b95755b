// Attention of documents in a captured graph: a replay serves the documents that the buffer of ends
// holds then, not those of the capture. And in deterministic mode, which must repeat its bits.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>

#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/properties.h"
#include "kernels/kernels.h"
#include "support/catch.h"

using namespace tptrain::kernels;

namespace {

constexpr int64_t kTokens = 600;
constexpr int64_t kLongest = 300;
constexpr int64_t kEntries = 16;  // documents, those left over empty

/// int32 [kEntries + 1] on the CPU.
at::Tensor ends_of(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> ends = {0};
  for (const int32_t length : lengths) ends.push_back(ends.back() + length);
  REQUIRE(ends.back() == kTokens);
  ends.resize(kEntries + 1, static_cast<int32_t>(kTokens));
  return at::tensor(ends, at::kInt);
}
std::vector<at::Tensor> batches() {
  return {ends_of({300, 300}), ends_of({1, 299, 1, 64, 0, 235}),
          ends_of({37, 40, 33, 41, 39, 40, 40, 50, 30, 40, 42, 38, 40, 40, 27, 23}),
          ends_of({128, 128, 128, 128, 88})};
}

/// Numbers that bf16 holds, on the CPU.
at::Tensor normal(at::IntArrayRef sizes) {
  return at::randn(sizes, at::kFloat).to(at::kBFloat16).to(at::kFloat);
}

double relative_error(const at::Tensor& received, const at::Tensor& expected) {
  return (received.to(at::kCPU, at::kFloat) - expected).abs().max().item<double>() /
         expected.abs().max().item<double>();
}

/// Context and gradient of qkv.
std::vector<at::Tensor> attend(const at::Tensor& qkv, const at::Tensor& grad,
                               const AttentionShape& shape, const Documents& documents) {
  const AttentionResult result = causal_attention(qkv, shape, &documents);
  return {result.context, causal_attention_backward(grad, qkv, result, shape, nullptr, &documents)};
}

class DeterministicMode {
 public:
  explicit DeterministicMode(bool on) {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
  }
  ~DeterministicMode() {
    at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false);
  }
};

struct Case {
  std::string backend;
  at::ScalarType type;
  AttentionShape shape;
  bool deterministic;  // the mode
  bool same_bits;      // whether the gradient repeats bit for bit
  double tolerance;    // of the CPU's fp32
};
const std::vector<Case> kCases = {
    {"cuDNN", at::kBFloat16, {14, 2, 64}, false, false, 1.2e-2},
    {"cuDNN", at::kBFloat16, {4, 4, 64}, false, false, 1.2e-2},
    {"cuDNN", at::kBFloat16, {8, 2, 128}, false, false, 1.2e-2},
    {"FlashAttention-2", at::kBFloat16, {14, 2, 64}, false, false, 1.2e-2},
    {"FlashAttention-2", at::kBFloat16, {14, 2, 64}, true, true, 1.2e-2},
    {"FlashAttention-2", at::kBFloat16, {4, 4, 128}, true, true, 1.2e-2},
    {"FlashAttention-2", at::kHalf, {4, 1, 256}, true, true, 1.2e-2},
    {"memory-efficient attention", at::kFloat, {8, 4, 32}, false, true, 1e-5},
    {"memory-efficient attention", at::kFloat, {8, 4, 32}, true, true, 1e-5},
    {"plain ATen, scores in memory", at::kFloat, {2, 1, 6}, false, true, 1e-5},
};

}  // namespace

TEST_CASE("a captured graph serves the documents of each replay", "[kernels]") {
  const c10::cuda::CUDAStreamGuard guard(at::cuda::getStreamFromPool());
  for (const Case& c : kCases) {
    CAPTURE(c.backend, c.type, c.shape.heads, c.shape.head_dim, c.deterministic);
    const DeterministicMode mode(c.deterministic);
    const cuda::TakenFor card(cuda::properties(), c.backend == "FlashAttention-2"
                                                      ? std::optional(cuda::FusedAttention::flash)
                                                      : std::nullopt);
    if (c.backend == "cuDNN" && !(cuda::has_cudnn_graphs() && cuda::capability() / 10 == 9)) {
      WARN(
          "not by cuDNN: this program was built without its graph interface, or this is no Hopper");
      continue;
    }
    const at::TensorOptions options = at::TensorOptions(at::Device("cuda")).dtype(c.type);
    const int64_t width = (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim;
    const at::Tensor qkv = at::empty({kTokens, 1, width}, options);
    const at::Tensor grad = at::empty({kTokens, 1, c.shape.heads * c.shape.head_dim}, options);
    const Documents documents = {.ends = batches().front().to(at::Device("cuda")),
                                 .longest = kLongest};
    REQUIRE(attention_backend(qkv, c.shape, AttentionMask::documents).name == c.backend);

    qkv.zero_();
    grad.zero_();
    attend(qkv, grad, c.shape, documents);  // what the first call sets up
    at::cuda::CUDAGraph graph;
    graph.capture_begin();
    const std::vector<at::Tensor> replayed = attend(qkv, grad, c.shape, documents);
    graph.capture_end();
    for (const at::Tensor& ends : batches()) {
      const at::Tensor values = normal(qkv.sizes()), grad_values = normal(grad.sizes());
      qkv.copy_(values);
      grad.copy_(grad_values);
      documents.ends.copy_(ends);
      graph.replay();
      const std::vector<at::Tensor> eager = attend(qkv, grad, c.shape, documents);
      CHECK(replayed[0].equal(eager[0]));
      if (c.same_bits) CHECK(replayed[1].equal(eager[1]));

      const std::vector<at::Tensor> expected =
          attend(values, grad_values, c.shape, {.ends = ends, .longest = kLongest});
      CHECK(relative_error(replayed[0], expected[0]) <= c.tolerance);
      CHECK(relative_error(replayed[1], expected[1]) <= c.tolerance);
    }
  }
}

TEST_CASE("empty documents change nothing", "[kernels]") {
  const DeterministicMode mode(true);
  const AttentionShape shape = {.heads = 14, .kv_heads = 2, .head_dim = 64};
  for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
    CAPTURE(type);
    const at::TensorOptions options = at::TensorOptions(at::Device("cuda")).dtype(type);
    const at::Tensor qkv = at::randn({kTokens, 1, 18 * 64}, options);
    const at::Tensor grad = at::randn({kTokens, 1, 14 * 64}, options);
    const auto received = [&](const std::vector<int32_t>& ends) {
      return attend(
          qkv, grad, shape,
          {.ends = at::tensor(ends, at::kInt).to(at::Device("cuda")), .longest = kLongest});
    };
    const std::vector<at::Tensor> few = received({0, 100, 300, 600});
    const std::vector<at::Tensor> padded = received({0, 0, 100, 100, 300, 600, 600, 600, 600});
    CHECK(padded[0].equal(few[0]));
    // The number of entries decides in how many parts FlashAttention-2 sums dQ.
    CHECK(relative_error(padded[1], few[1].to(at::kCPU, at::kFloat)) <=
          (type == at::kFloat ? 1e-6 : 1e-2));
  }
}
