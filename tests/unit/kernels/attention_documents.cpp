// Causal attention of documents packed into one sequence: against a plain fp64 composition with a
// mask and autograd, and against each document alone.
#include <algorithm>
#include <numeric>

#include "kernels/cuda/cudnn_graph.h"
#include "kernels/cuda/properties.h"
#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels/reference_attention.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

struct Case {
  std::vector<int64_t> lengths;
  AttentionShape shape;
};

// Around the block sizes of the kernels; documents of one token, empty ones (first, between, last,
// several), one alone, one that is the sequence; groups of 1, 2, 3 and 7.
const std::vector<Case> kCases = {
    {{5}, {1, 1, 8}},
    {{1, 1, 1}, {4, 1, 16}},
    {{0, 3, 0, 0, 7, 1, 0}, {3, 3, 8}},
    {{33, 31, 64, 2}, {8, 4, 32}},
    {{130, 1, 127, 129, 0, 0, 0, 0}, {6, 2, 64}},
    {{257}, {2, 2, 128}},
    {{100, 200, 300, 17}, {14, 2, 64}},
    {{1, 90, 161, 40, 0, 5}, {4, 2, 24}},
};

int64_t tokens_of(const Case& c) {
  return std::accumulate(c.lengths.begin(), c.lengths.end(), int64_t{0});
}
int64_t longest_of(const Case& c) { return *std::ranges::max_element(c.lengths); }

at::Tensor ends_of(const std::vector<int64_t>& lengths) {  // int32, on the CPU
  std::vector<int32_t> ends = {0};
  for (const int64_t length : lengths) ends.push_back(ends.back() + static_cast<int32_t>(length));
  return at::tensor(ends, at::kInt);
}
Documents documents_of(const Case& c) {
  return {.ends = ends_of(c.lengths).to(device()), .longest = longest_of(c)};
}

at::Tensor random_qkv(const Case& c, uint64_t seed) {
  return normal({tokens_of(c), 1, (c.shape.heads + 2 * c.shape.kv_heads) * c.shape.head_dim}, seed);
}
at::Tensor random_grad(const Case& c, uint64_t seed) {
  return normal({tokens_of(c), 1, c.shape.heads * c.shape.head_dim}, seed);
}

/// Of each two tokens, whether they are of different documents.
at::Tensor other_document(const Case& c) {
  const at::Tensor numbers = at::repeat_interleave(at::tensor(c.lengths, at::kLong));
  return numbers.unsqueeze(0).ne(numbers.unsqueeze(1));
}

/// q, k and v each against its own largest element: a wrong scale of one must not hide behind
/// another. Where all documents are of one token, the gradients of q and k are 0: these against the
/// largest of all.
void check_gradient(const at::Tensor& received, const at::Tensor& expected, const Case& c,
                    double tolerance) {
  REQUIRE(received.sizes() == expected.sizes());
  const int64_t q = c.shape.heads * c.shape.head_dim;
  const int64_t kv = c.shape.kv_heads * c.shape.head_dim;
  const double largest = expected.abs().max().item<double>();
  for (const auto& [first, columns] : {std::pair{int64_t{0}, q}, {q, kv}, {q + kv, kv}}) {
    const at::Tensor part = expected.narrow(2, first, columns);
    const bool zero = part.eq(0).all().item<bool>();
    CHECK_CLOSE(received.narrow(2, first, columns), part, tolerance * (zero ? largest : 1.0));
  }
}

}  // namespace

TEST_CASE("attention of documents and its gradient match a mask and autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Case& c : kCases) {
    const at::Tensor qkv = leaf(random_qkv(c, 50));
    const at::Tensor grad = random_grad(c, 51);
    const at::Tensor expected = reference_attention(qkv, c.shape, {.hidden = other_document(c)});
    expected.backward(grad);
    for (const Precision precision : precisions()) {
      CAPTURE(c.lengths, c.shape.heads, c.shape.kv_heads, c.shape.head_dim, precision.type);
      Documents documents = documents_of(c);
      const at::Tensor local = on_device(qkv.detach(), precision.type);
      for (const int64_t longest : {documents.longest, documents.longest + 100}) {
        documents.longest = longest;  // a bound, no more
        const AttentionResult result = causal_attention(local, c.shape, &documents);
        REQUIRE(result.context.sizes() == expected.sizes());
        CHECK(result.context.is_contiguous());
        CHECK(result.context.scalar_type() == precision.type);
        CHECK_CLOSE(result.context, expected, precision.tolerance);
        check_gradient(causal_attention_backward(on_device(grad, precision.type), local, result,
                                                 c.shape, nullptr, &documents),
                       qkv.grad(), c, 2 * precision.tolerance);
      }
    }
  }
}

TEST_CASE("the gradient of documents that were rotated is turned back", "[kernels]") {
  at::set_num_threads(1);
  for (const Case& c : kCases) {
    for (const Precision precision : fused_precisions()) {
      CAPTURE(c.lengths, c.shape.heads, c.shape.kv_heads, c.shape.head_dim, precision.type);
      const Documents documents = documents_of(c);
      const at::Tensor qkv = on_device(random_qkv(c, 52), precision.type);
      const at::Tensor grad = on_device(random_grad(c, 53), precision.type);
      const RotaryTable table = rotary_table(0, tokens_of(c), c.shape.head_dim, 100.0, device());
      const AttentionResult result = causal_attention(qkv, c.shape, &documents);
      at::Tensor expected =
          causal_attention_backward(grad, qkv, result, c.shape, nullptr, &documents);
      rotate_(expected, table, c.shape.heads + c.shape.kv_heads, c.shape.head_dim,
              Rotation::inverse);
      CHECK_CLOSE(causal_attention_backward(grad, qkv, result, c.shape, &table, &documents),
                  expected, precision.tolerance);
    }
  }
}

TEST_CASE("a document gets what it gets alone", "[kernels]") {
  at::set_num_threads(1);
  for (const Case& c : kCases) {
    for (const Precision precision : precisions()) {
      CAPTURE(c.lengths, c.shape.heads, c.shape.kv_heads, c.shape.head_dim, precision.type);
      const Documents documents = documents_of(c);
      const at::Tensor qkv = on_device(random_qkv(c, 54), precision.type);
      const at::Tensor grad = on_device(random_grad(c, 55), precision.type);
      const AttentionResult packed = causal_attention(qkv, c.shape, &documents);
      const at::Tensor grad_qkv =
          causal_attention_backward(grad, qkv, packed, c.shape, nullptr, &documents);
      int64_t begin = 0;
      for (const int64_t length : c.lengths) {
        if (length == 0) continue;
        const at::Tensor alone = qkv.narrow(0, begin, length);
        const AttentionResult result = causal_attention(alone, c.shape);
        const at::Tensor grad_alone =
            causal_attention_backward(grad.narrow(0, begin, length), alone, result, c.shape);
        const at::Tensor context_part = packed.context.narrow(0, begin, length);
        const at::Tensor grad_part = grad_qkv.narrow(0, begin, length);
        begin += length;
        if (!device().is_cuda() && precision.type != at::kDouble) {
          CHECK(same_bits(context_part, result.context));
          CHECK(same_bits(grad_part, grad_alone));
        } else {
          CHECK_CLOSE(context_part, result.context, 2 * precision.tolerance);
          CHECK_CLOSE(grad_part, grad_alone, 4 * precision.tolerance);
        }
      }
    }
  }
}

TEST_CASE("no document sees another, not even its NaN", "[kernels]") {
  at::set_num_threads(1);
  const Case c = {{70, 60, 100}, {4, 2, 32}};
  const Documents documents = documents_of(c);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    CAPTURE(type);
    const at::Tensor qkv = on_device(random_qkv(c, 56), type);
    const at::Tensor grad = on_device(random_grad(c, 57), type);
    at::Tensor changed = qkv.clone();
    changed.narrow(0, 70, 60).fill_(std::numeric_limits<double>::quiet_NaN());
    const AttentionResult before = causal_attention(qkv, c.shape, &documents);
    const AttentionResult after = causal_attention(changed, c.shape, &documents);
    const at::Tensor grad_before =
        causal_attention_backward(grad, qkv, before, c.shape, nullptr, &documents);
    const at::Tensor grad_after =
        causal_attention_backward(grad, changed, after, c.shape, nullptr, &documents);
    for (const auto& [begin, length] : {std::pair{0, 70}, std::pair{130, 100}}) {
      CHECK(same_bits(before.context.narrow(0, begin, length),
                      after.context.narrow(0, begin, length)));
      // Sums by atomics may round otherwise.
      CHECK_CLOSE(grad_after.narrow(0, begin, length), grad_before.narrow(0, begin, length),
                  device().is_cuda() ? 6e-3 : 0.0);
    }
    CHECK(after.context.narrow(0, 70, 60).isnan().all().item<bool>());
    CHECK(grad_after.narrow(0, 70, 60).isnan().any().item<bool>());
  }
}

TEST_CASE("documents do not depend on the number of threads", "[kernels]") {
  const Case c = {{40, 3, 150, 0, 77, 1}, {8, 4, 32}};
  const Documents documents = documents_of(c);
  const at::Tensor qkv = on_device(random_qkv(c, 58), at::kFloat);
  const at::Tensor grad = on_device(random_grad(c, 59), at::kFloat);
  const auto run = [&](int threads) {
    at::set_num_threads(threads);
    const AttentionResult result = causal_attention(qkv, c.shape, &documents);
    const at::Tensor grad_qkv =
        causal_attention_backward(grad, qkv, result, c.shape, nullptr, &documents);
    at::set_num_threads(1);
    return std::vector<at::Tensor>{result.context, grad_qkv};
  };
  const std::vector<at::Tensor> one = run(1);
  const std::vector<at::Tensor> two = run(2);
  CHECK(same_bits(one[0], two[0]));
  CHECK(same_bits(one[1], two[1]));
}

TEST_CASE("documents that do not fit the sequence are refused", "[kernels]") {
  const AttentionShape shape{.heads = 1, .kv_heads = 1, .head_dim = 8};
  const at::Tensor qkv = at::zeros({6, 1, 24}, at::TensorOptions(device()).dtype(at::kFloat));
  const auto refused = [&](const at::Tensor& packed, const at::Tensor& ends, int64_t longest) {
    const Documents documents{.ends = ends, .longest = longest};
    return message_of([&] { causal_attention(packed, shape, &documents); });
  };
  const auto ends = [](const std::vector<int32_t>& values) {
    return at::tensor(values, at::kInt).to(device());
  };
  CHECK(refused(qkv, ends({0, 4, 6}), 4).empty());
  CHECK(contains(refused(qkv.view({3, 2, 24}), ends({0, 3}), 3), "one sequence of documents"));
  CHECK(contains(refused(qkv, ends({0, 6}), 0), "bound of their length"));
  CHECK(contains(refused(qkv, ends({0}), 6), "int32 on the device of qkv"));
  CHECK(contains(refused(qkv, ends({0, 6}).to(at::kLong), 6), "int32 on the device of qkv"));
  CHECK(contains(refused(qkv, {}, 6), "int32 on the device of qkv"));
  if (device().is_cuda()) {  // where the host does not look at them
    CHECK(contains(refused(qkv, ends({0, 6}).cpu(), 6), "int32 on the device of qkv"));
    return;
  }
  CHECK(contains(refused(qkv, ends({1, 6}), 6), "ends[0] of documents is 1 for 6 tokens"));
  CHECK(contains(refused(qkv, ends({0, 4, 3, 6}), 6), "ends[2] of documents is 3"));
  CHECK(contains(refused(qkv, ends({0, 4}), 6), "be the number of tokens"));
  CHECK(contains(refused(qkv, ends({0, 4, 7}), 6), "be the number of tokens"));
  CHECK(contains(refused(qkv, ends({0, 5, 6}), 4), "at most 4 behind the one before"));
}

TEST_CASE("what serves documents is named", "[kernels]") {
  const AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 64};
  const auto backend = [&](at::ScalarType type, const AttentionShape& of) {
    const at::Tensor qkv = at::empty({2, 1, (of.heads + 2 * of.kv_heads) * of.head_dim},
                                     at::TensorOptions(device()).dtype(type));
    return attention_backend(qkv, of, AttentionMask::documents);
  };
  if (!device().is_cuda()) {
    CHECK(backend(at::kBFloat16, shape).name == "blocked loops of the CPU");
    CHECK(backend(at::kDouble, shape).name == "plain ATen");
    return;
  }
  const AttentionShape odd{.heads = 4, .kv_heads = 2, .head_dim = 24};
  CHECK(backend(at::kBFloat16, odd).name == "FlashAttention-2");
  CHECK(contains(backend(at::kBFloat16, odd).slower_than, "documents"));
  const bool cudnn = cuda::has_cudnn_graphs() && cuda::capability() / 10 == 9;
  CHECK(backend(at::kBFloat16, shape).name == (cudnn ? "cuDNN" : "FlashAttention-2"));
  CHECK(backend(at::kBFloat16, shape).slower_than.empty() == cudnn);
  CHECK(backend(at::kFloat, shape).name == "memory-efficient attention");
  CHECK(contains(backend(at::kFloat, {.heads = 1, .kv_heads = 1, .head_dim = 6}).name, "plain"));
}
