// Dropout: its mask against Philox called element by element, the same on every path, type and cut;
// attention with dropout against fp64 autograd with the mask given.
#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels/reference_attention.h"
#include "random/philox.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

/// 1 where the header's definition keeps an element: [heads, S, B, width], fp64.
at::Tensor kept(at::IntArrayRef sizes, const Dropout& dropout, int64_t first_position) {
  at::Tensor mask = at::empty(sizes, at::kDouble);
  double* out = mask.data_ptr<double>();
  const uint32_t threshold = static_cast<uint32_t>(dropout.probability * 4294967296.0);
  for (int64_t head = 0; head < sizes[0]; ++head) {
    for (int64_t s = 0; s < sizes[1]; ++s) {
      for (int64_t b = 0; b < sizes[2]; ++b) {
        for (int64_t i = 0; i < sizes[3]; ++i) {
          const std::array<uint32_t, 4> words = tptrain::random::philox_rounds(
              {static_cast<uint32_t>(i / 4), static_cast<uint32_t>(first_position + s),
               static_cast<uint32_t>(dropout.first_sample + b),
               static_cast<uint32_t>(dropout.first_head + head)},
              dropout.key);
          *out++ = words[static_cast<size_t>(i % 4)] < threshold ? 0.0 : 1.0;
        }
      }
    }
  }
  return mask;
}

struct Size {
  int64_t positions, batch, width;
};
// Widths around the four words of a counter and the 256 elements of a block.
const std::vector<Size> kSizes = {{1, 1, 1},   {3, 2, 7},   {5, 1, 64},  {2, 3, 255},
                                  {2, 2, 256}, {2, 1, 257}, {4, 2, 1000}};
const Dropout kDropout = {
    .probability = 0.3, .key = {0x12345678u, 0x9abcdef0u}, .first_sample = 41, .first_head = 5};

/// What dropout does to the probabilities of qkv's attention: [B, heads, S, S].
at::Tensor factors_of(const at::Tensor& qkv, const AttentionShape& shape, const Dropout& dropout) {
  const int64_t positions = qkv.size(0), batch = qkv.size(1);
  return kept({shape.heads, positions, batch, positions}, dropout, 0).permute({2, 0, 1, 3}) /
         (1.0 - dropout.probability);
}

}  // namespace

TEST_CASE("dropout_ drops what Philox says and scales the rest, in every type", "[kernels]") {
  at::set_num_threads(1);
  for (const Size size : kSizes) {
    for (const double probability : {0.1, 0.3, 0.999}) {
      Dropout dropout = kDropout;
      dropout.probability = probability;
      Dropout without_head = dropout;  // head is 0 in the counter, whatever first_head says
      without_head.first_head = 0;
      const at::Tensor mask =
          kept({1, size.positions, size.batch, size.width}, without_head, 1000).squeeze(0);
      const at::Tensor x = normal({size.positions, size.batch, size.width}, 50);
      for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
        CAPTURE(size.positions, size.batch, size.width, probability, type);
        at::Tensor received = on_device(x, type).clone();
        dropout_(received, dropout, 1000);
        const at::Tensor expected =
            at::where(mask.ne(0.0), x.to(at::kFloat) * (1.0 / (1.0 - probability)), 0.0).to(type);
        CHECK(same_bits(received.cpu(), expected));
      }
    }
  }
}

TEST_CASE("dropout of probability 0 leaves every bit", "[kernels]") {
  at::Tensor x = on_device(normal({4, 2, 33}, 51), at::kFloat);
  const at::Tensor before = x.clone();
  dropout_(x, {.probability = 0.0, .key = {1, 2}}, 0);
  CHECK(same_bits(x, before));
}

TEST_CASE("a slice of positions or samples draws what the whole draws there", "[kernels]") {
  const at::Tensor x = on_device(normal({12, 6, 100}, 52), at::kFloat);
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    at::Tensor whole = x.repeat({4, 1, 20}).clone();  // large enough for two threads
    dropout_(whole, kDropout, 8);
    at::set_num_threads(1);
    at::Tensor positions = x.repeat({4, 1, 20}).narrow(0, 5, 13).contiguous().clone();
    dropout_(positions, kDropout, 8 + 5);
    CHECK(same_bits(positions, whole.narrow(0, 5, 13).contiguous()));
    at::Tensor samples = x.repeat({4, 1, 20}).narrow(1, 2, 3).contiguous().clone();
    Dropout later = kDropout;
    later.first_sample += 2;
    dropout_(samples, later, 8);
    CHECK(same_bits(samples, whole.narrow(1, 2, 3).contiguous()));
  }
}

TEST_CASE("a slice of the elements draws what the whole draws there", "[kernels]") {
  const at::Tensor x = on_device(normal({3, 2, 600}, 53), at::kFloat);
  at::Tensor whole = x.clone();
  dropout_(whole, kDropout, 8);
  // At a counter's first word and at others, over the borders of the loops' blocks.
  const std::vector<std::pair<int64_t, int64_t>> slices = {
      {8, 520}, {5, 3}, {255, 300}, {258, 256}, {599, 1}};
  for (const auto& [first, width] : slices) {
    CAPTURE(first, width);
    at::Tensor slice = x.narrow(2, first, width).contiguous().clone();
    Dropout later = kDropout;
    later.first_element = first;
    dropout_(slice, later, 8);
    CHECK(same_bits(slice, whole.narrow(2, first, width).contiguous()));
  }
}

TEST_CASE("the share of dropped elements is the probability", "[kernels]") {
  at::Tensor x = at::ones({64, 4, 256}, at::TensorOptions(device()).dtype(at::kFloat));
  dropout_(x, {.probability = 0.25, .key = {7, 9}}, 0);
  // 65,536 draws: the standard deviation of the share is 0.0017.
  CHECK(std::abs(x.eq(0.0).to(at::kDouble).mean().item<double>() - 0.25) < 0.007);
  CHECK(std::abs(x.mean().item<double>() - 1.0) < 0.01);
}

TEST_CASE("attention with dropout and its gradient match autograd", "[kernels]") {
  at::set_num_threads(1);
  struct Case {
    int64_t positions, batch;
    AttentionShape shape;
  };
  for (const Case& c : {Case{1, 1, {1, 1, 8}}, Case{7, 2, {3, 1, 8}}, Case{33, 2, {8, 4, 32}},
                        Case{130, 1, {4, 4, 16}}, Case{64, 1, {14, 2, 64}}}) {
    for (const double probability : {0.0, 0.2}) {
      for (const Precision precision : fused_precisions()) {
        CAPTURE(c.positions, c.batch, c.shape.heads, c.shape.kv_heads, probability, precision.type);
        Dropout dropout = kDropout;
        dropout.probability = probability;
        const int64_t heads = c.shape.heads + 2 * c.shape.kv_heads;
        const at::Tensor qkv = leaf(normal({c.positions, c.batch, heads * c.shape.head_dim}, 53));
        const at::Tensor grad =
            normal({c.positions, c.batch, c.shape.heads * c.shape.head_dim}, 54);
        const at::Tensor expected =
            reference_attention(qkv, c.shape, {.factors = factors_of(qkv, c.shape, dropout)});
        expected.backward(grad);

        const at::Tensor local = on_device(qkv.detach(), precision.type);
        const at::Tensor context = causal_attention_dropout(local, c.shape, dropout);
        CHECK(context.scalar_type() == precision.type);
        REQUIRE(context.sizes() == expected.sizes());
        CHECK_CLOSE(context, expected, precision.tolerance);
        if (probability == 0.0)
          CHECK_CLOSE(causal_attention(local, c.shape).context, context, precision.tolerance);

        const at::Tensor received = causal_attention_dropout_backward(
            on_device(grad, precision.type), local, c.shape, dropout);
        int64_t column = 0;
        for (const int64_t count : {c.shape.heads, c.shape.kv_heads, c.shape.kv_heads}) {
          const int64_t width = count * c.shape.head_dim;
          CHECK_CLOSE(received.narrow(2, column, width), qkv.grad().narrow(2, column, width),
                      2 * precision.tolerance);
          column += width;
        }
      }
    }
  }
}

TEST_CASE("attention with dropout: a rank's heads draw what they draw on one rank", "[kernels]") {
  at::set_num_threads(1);
  // Two kv heads with three query heads each, cut into one kv head a rank, and into uneven shares
  // of a kv head's query heads.
  const AttentionShape shape{.heads = 6, .kv_heads = 2, .head_dim = 16};
  const at::Tensor qkv = on_device(normal({40, 2, 10 * 16}, 55), at::kFloat);
  const at::Tensor whole = causal_attention_dropout(qkv, shape, kDropout);
  struct Cut {
    int64_t first_head, heads, kv_head;
  };
  for (const Cut cut : {Cut{0, 3, 0}, Cut{3, 3, 1}, Cut{0, 2, 0}, Cut{2, 1, 0}, Cut{4, 2, 1}}) {
    CAPTURE(cut.first_head, cut.heads);
    const at::Tensor local = at::cat({qkv.narrow(2, cut.first_head * 16, cut.heads * 16),
                                      qkv.narrow(2, (6 + cut.kv_head) * 16, 16),
                                      qkv.narrow(2, (8 + cut.kv_head) * 16, 16)},
                                     2)
                                 .contiguous();
    Dropout dropout = kDropout;
    dropout.first_head += cut.first_head;
    CHECK_CLOSE(causal_attention_dropout(local, {.heads = cut.heads, .kv_heads = 1, .head_dim = 16},
                                         dropout),
                whole.narrow(2, cut.first_head * 16, cut.heads * 16), kFp32Tolerance);
  }
}

TEST_CASE("attention with dropout repeats bit for bit", "[kernels]") {
  at::set_num_threads(1);
  const AttentionShape shape{.heads = 4, .kv_heads = 2, .head_dim = 32};
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor qkv = on_device(normal({90, 2, 8 * 32}, 56), type);
    const at::Tensor grad = on_device(normal({90, 2, 4 * 32}, 57), type);
    CHECK(same_bits(causal_attention_dropout(qkv, shape, kDropout),
                    causal_attention_dropout(qkv, shape, kDropout)));
    CHECK(same_bits(causal_attention_dropout_backward(grad, qkv, shape, kDropout),
                    causal_attention_dropout_backward(grad, qkv, shape, kDropout)));
  }
}

TEST_CASE("a probability outside [0, 1) is refused", "[kernels]") {
  at::Tensor x = at::ones({1, 1, 4}, at::TensorOptions(device()).dtype(at::kFloat));
  for (const double probability : {1.0, -0.1, std::numeric_limits<double>::quiet_NaN()}) {
    CHECK(contains(message_of([&] { dropout_(x, {.probability = probability}, 0); }),
                   "must lie in [0, 1)"));
  }
  CHECK(contains(message_of([&] {
                   at::Tensor flat = at::ones({4}, x.options());
                   dropout_(flat, {.probability = 0.1}, 0);
                 }),
                 "[S, B, H]"));
}
