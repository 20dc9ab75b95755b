// LayerNorm, RMSNorm of heads and GELU against plain ATen with autograd in fp64; sizes as in
// elementwise.cpp.
#include "kernels/kernels.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

constexpr double kEps = 1e-5;

struct Size {
  int64_t tokens;
  int64_t columns;
};
const std::vector<Size> kSizes = {{1, 7},    {1, 172},  {5, 7},    {130, 172}, {33, 256},
                                  {600, 64}, {70, 768}, {9, 896},  {5, 1000},  {3, 1536},
                                  {7, 4096}, {3, 7168}, {2, 9216}, {2, 14336}, {3, 1001}};

at::Tensor reference_layer_norm(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& bias) {
  return at::layer_norm(x, weight.sizes(), weight, bias, kEps);
}

at::Tensor zeros_for_gradients(int64_t size, at::ScalarType type) {
  return at::zeros(
      {size}, at::TensorOptions(device()).dtype(type == at::kDouble ? at::kDouble : at::kFloat));
}

struct HeadSizes {
  int64_t positions, batch, heads, kv_heads, head_dim;
  AttentionShape shape() const {
    return {.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim};
  }
  int64_t width() const { return (heads + 2 * kv_heads) * head_dim; }
};
const std::vector<HeadSizes> kHeadSizes = {{1, 1, 1, 1, 2},   {7, 3, 3, 1, 6},
                                           {16, 2, 8, 4, 32}, {40, 1, 14, 2, 128},
                                           {5, 2, 70, 1, 10}, {700, 1, 14, 2, 64}};

}  // namespace

TEST_CASE("layer_norm and its gradients match autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Size size : kSizes) {
    for (const Precision precision : precisions()) {
      CAPTURE(size.tokens, size.columns, precision.type);
      // A mean far from zero: the variance of the squares would cancel.
      const at::Tensor x = leaf(normal({size.tokens, size.columns}, 1) + 8.0);
      const at::Tensor weight = leaf(normal({size.columns}, 2));
      const at::Tensor bias = leaf(normal({size.columns}, 6));
      const at::Tensor grad = normal({size.tokens, size.columns}, 3);
      const at::Tensor local_x = on_device(x.detach(), precision.type);
      // What the kernel sees: bf16 has rounded x + 8.
      const at::Tensor seen = leaf(local_x.cpu().to(at::kDouble));
      const at::Tensor expected = reference_layer_norm(seen, weight, bias);
      expected.backward(grad);

      const at::Tensor local_weight = on_device(weight.detach(), precision.type);
      const at::Tensor local_bias = on_device(bias.detach(), precision.type);
      const LayerNormResult result = layer_norm(local_x, local_weight, local_bias, kEps);
      CHECK(result.output.scalar_type() == precision.type);
      CHECK(result.statistics.sizes() == at::IntArrayRef({2, size.tokens}));
      CHECK_CLOSE(result.output, expected, precision.tolerance);

      // Added to what is there: the second half of a gradient accumulation.
      at::Tensor weight_grad = zeros_for_gradients(size.columns, precision.type) + 1.0;
      at::Tensor bias_grad = zeros_for_gradients(size.columns, precision.type) + 2.0;
      const at::Tensor grad_x =
          layer_norm_backward(on_device(grad, precision.type), local_x, local_weight,
                              result.statistics, weight_grad, bias_grad);
      CHECK_CLOSE(grad_x, seen.grad(), precision.tolerance);
      CHECK_CLOSE(weight_grad - 1.0, weight.grad(), precision.tolerance);
      CHECK_CLOSE(bias_grad - 2.0, bias.grad(), precision.tolerance);
    }
  }
}

// What CUDA adds up in passing, where a row lies in registers, is what the rows add up to.
void check_column_sums(const at::Tensor& column_sums, const at::Tensor& expected,
                       const Precision& precision) {
  const bool in_registers = device().is_cuda() && precision.type != at::kDouble &&
                            expected.size(-1) % 8 == 0 && expected.size(-1) <= 4096;
  if (in_registers) CHECK(column_sums.defined());
  if (!column_sums.defined()) return;
  CHECK(column_sums.scalar_type() == at::kFloat);
  CHECK_CLOSE(column_sums, expected.reshape({-1, expected.size(-1)}).sum(0), precision.tolerance);
}

TEST_CASE("add_layer_norm and its gradients match autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Size size : kSizes) {
    for (const Precision precision : precisions()) {
      CAPTURE(size.tokens, size.columns, precision.type);
      const at::Tensor residual = leaf(normal({size.tokens, 1, size.columns}, 1));
      const at::Tensor delta = leaf(normal({size.tokens, 1, size.columns}, 4));
      const at::Tensor weight = leaf(normal({size.columns}, 2));
      const at::Tensor bias = leaf(normal({size.columns}, 6));
      const at::Tensor grad_output = normal({size.tokens, 1, size.columns}, 3);
      const at::Tensor grad_sum = normal({size.tokens, 1, size.columns}, 5);
      const at::Tensor sum = residual + delta;
      const at::Tensor output = reference_layer_norm(sum, weight, bias);
      ((output * grad_output).sum() + (sum * grad_sum).sum()).backward();

      const at::Tensor local_weight = on_device(weight.detach(), precision.type);
      const AddLayerNormResult result = add_layer_norm(
          on_device(residual.detach(), precision.type), on_device(delta.detach(), precision.type),
          local_weight, on_device(bias.detach(), precision.type), kEps);
      CHECK_CLOSE(result.sum, sum, precision.tolerance);
      CHECK_CLOSE(result.norm.output, output, precision.tolerance);

      at::Tensor weight_grad = zeros_for_gradients(size.columns, precision.type);
      at::Tensor bias_grad = zeros_for_gradients(size.columns, precision.type);
      at::Tensor column_sums;
      const at::Tensor grad = add_layer_norm_backward(
          on_device(grad_sum, precision.type), on_device(grad_output, precision.type), result.sum,
          local_weight, result.norm.statistics, weight_grad, bias_grad, &column_sums);
      CHECK_CLOSE(grad, residual.grad(), precision.tolerance);
      check_column_sums(column_sums, residual.grad(), precision);
      CHECK_CLOSE(weight_grad, weight.grad(), precision.tolerance);
      CHECK_CLOSE(bias_grad, bias.grad(), precision.tolerance);
    }
  }
}

TEST_CASE("layer_norm_again is the forward's output bit for bit", "[kernels]") {
  for (const Size size : kSizes) {
    for (const Precision precision : precisions()) {
      for (const int threads : {1, 2}) {
        CAPTURE(size.tokens, size.columns, precision.type, threads);
        const at::Tensor x = on_device(normal({size.tokens, 1, size.columns}, 1), precision.type);
        const at::Tensor delta =
            on_device(normal({size.tokens, 1, size.columns}, 4), precision.type);
        const at::Tensor weight = on_device(normal({size.columns}, 2), precision.type);
        const at::Tensor bias = on_device(normal({size.columns}, 6), precision.type);
        at::set_num_threads(threads);
        const LayerNormResult alone = layer_norm(x, weight, bias, kEps);
        const AddLayerNormResult added = add_layer_norm(x, delta, weight, bias, kEps);
        at::set_num_threads(1);
        CHECK(same_bits(layer_norm_again(x, weight, bias, alone.statistics), alone.output));
        CHECK(same_bits(layer_norm_again(added.sum, weight, bias, added.norm.statistics),
                        added.norm.output));
      }
    }
  }
}

TEST_CASE("head_rms_norm_ norms q and k head by head, leaves v alone, and matches autograd",
          "[kernels]") {
  at::set_num_threads(1);
  for (const HeadSizes& c : kHeadSizes) {
    for (const Precision precision : precisions()) {
      CAPTURE(c.positions, c.heads, c.head_dim, precision.type);
      const at::Tensor qkv = leaf(normal({c.positions, c.batch, c.width()}, 10));
      const at::Tensor q_weight = leaf(normal({c.head_dim}, 11));
      const at::Tensor k_weight = leaf(normal({c.head_dim}, 12));
      const at::Tensor grad = normal({c.positions, c.batch, c.width()}, 13);
      const auto normed = [&](int64_t first, int64_t heads, const at::Tensor& weight) {
        const at::Tensor rows = qkv.narrow(2, first * c.head_dim, heads * c.head_dim)
                                    .reshape({c.positions, c.batch, heads, c.head_dim});
        return (rows * at::rsqrt((rows * rows).mean(-1, true) + kEps) * weight)
            .reshape({c.positions, c.batch, heads * c.head_dim});
      };
      const int64_t qk_width = (c.heads + c.kv_heads) * c.head_dim;
      const at::Tensor expected =
          at::cat({normed(0, c.heads, q_weight), normed(c.heads, c.kv_heads, k_weight),
                   qkv.narrow(2, qk_width, c.kv_heads * c.head_dim)},
                  2);
      expected.backward(grad);

      const HeadNorm norm = {.q_weight = on_device(q_weight.detach(), precision.type),
                             .k_weight = on_device(k_weight.detach(), precision.type),
                             .eps = kEps};
      const at::Tensor original = on_device(qkv.detach(), precision.type);
      at::Tensor received = original.clone();
      head_rms_norm_(received, norm, c.shape());
      CHECK_CLOSE(received, expected, precision.tolerance);
      CHECK(same_bits(received.slice(2, qk_width).contiguous(),
                      original.slice(2, qk_width).contiguous()));

      at::Tensor received_grad = on_device(grad, precision.type).clone();
      at::Tensor q_grad = zeros_for_gradients(c.head_dim, precision.type) + 1.0;
      at::Tensor k_grad = zeros_for_gradients(c.head_dim, precision.type) + 2.0;
      head_rms_norm_backward_(received_grad, original.narrow(2, 0, qk_width).contiguous(), norm,
                              c.shape(), q_grad, k_grad);
      CHECK_CLOSE(received_grad, qkv.grad(), precision.tolerance);
      CHECK_CLOSE(q_grad - 1.0, q_weight.grad(), precision.tolerance);
      CHECK_CLOSE(k_grad - 2.0, k_weight.grad(), precision.tolerance);
    }
  }
}

TEST_CASE("gelu and its gradient match autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Size size : kSizes) {
    for (const Precision precision : fused_precisions()) {
      CAPTURE(size.tokens, size.columns, precision.type);
      const at::Tensor x = leaf(normal({size.tokens, size.columns}, 6, 4.0));
      const at::Tensor grad = normal({size.tokens, size.columns}, 7);
      const at::Tensor expected = at::gelu(x, "tanh");
      expected.backward(grad);
      const at::Tensor local = on_device(x.detach(), precision.type);
      CHECK_CLOSE(gelu_tanh(local), expected, precision.tolerance);
      CHECK_CLOSE(gelu_tanh_backward(on_device(grad, precision.type), local), x.grad(),
                  precision.tolerance);
    }
  }
}

TEST_CASE("gelu keeps its limits over a wide range, and lets NaN through", "[kernels]") {
  at::set_num_threads(1);
  const at::Tensor x = at::linspace(-60.0, 60.0, 40001, at::kFloat).to(device());
  const at::Tensor expected = at::gelu(x.cpu().to(at::kDouble), "tanh");
  CHECK((gelu_tanh(x).cpu().to(at::kDouble) - expected).abs().max().item<double>() < 1e-5);
  CHECK(gelu_tanh_backward(at::ones_like(x), x).isfinite().all().item<bool>());
  at::Tensor with_nan = at::zeros({172}, x.options());
  with_nan[5] = std::numeric_limits<double>::quiet_NaN();
  CHECK(at::isnan(gelu_tanh(with_nan)).sum().item<int64_t>() == 1);
  CHECK(at::isnan(gelu_tanh_backward(at::ones_like(with_nan), with_nan)).sum().item<int64_t>() ==
        1);
}

TEST_CASE("NaN in a row stays in that row of layer_norm and of a head", "[kernels]") {
  at::set_num_threads(1);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  at::Tensor x = normal({3, 172}, 8).to(device(), at::kFloat);
  x[1][171] = nan;
  const at::Tensor ones = at::ones({172}, x.options());
  const LayerNormResult result = layer_norm(x, ones, ones, kEps);
  CHECK(result.output[1].isnan().all().item<bool>());
  CHECK(result.output[0].isfinite().all().item<bool>());
  CHECK(result.output[2].isfinite().all().item<bool>());
  at::Tensor qkv = normal({1, 1, 5 * 6}, 9).to(device(), at::kFloat);
  qkv[0][0][6] = nan;  // the second head of q
  const at::Tensor six = at::ones({6}, qkv.options());
  head_rms_norm_(qkv, {.q_weight = six, .k_weight = six, .eps = kEps},
                 {.heads = 3, .kv_heads = 1, .head_dim = 6});
  CHECK(at::isnan(qkv).sum().item<int64_t>() == 6);
}

TEST_CASE("norms and gelu repeat bit for bit, and two threads agree with one", "[kernels]") {
  check_repeats_on_threads([](at::ScalarType type) {
    const at::Tensor x = normal({700, 1, 180}, 12).to(device(), type);
    const at::Tensor weight = normal({180}, 13).to(device(), type);
    const LayerNormResult result = layer_norm(x, weight, weight, kEps);
    at::Tensor weight_grad = at::zeros({180}, x.options().dtype(at::kFloat));
    at::Tensor bias_grad = weight_grad.clone();
    const at::Tensor grad =
        layer_norm_backward(x, x, weight, result.statistics, weight_grad, bias_grad);
    const AttentionShape shape = {.heads = 6, .kv_heads = 2, .head_dim = 18};
    const at::Tensor head_weight = weight.narrow(0, 0, 18).contiguous();
    const HeadNorm norm = {.q_weight = head_weight, .k_weight = head_weight, .eps = kEps};
    at::Tensor heads = x.clone();
    head_rms_norm_(heads, norm, shape);
    at::Tensor head_grad = x.clone();
    at::Tensor q_grad = at::zeros({18}, weight_grad.options());
    at::Tensor k_grad = q_grad.clone();
    head_rms_norm_backward_(head_grad, x.narrow(2, 0, 8 * 18).contiguous(), norm, shape, q_grad,
                            k_grad);
    const at::Tensor activation = gelu_tanh(x);
    return std::vector<at::Tensor>{result.output, grad,   weight_grad, bias_grad, heads,
                                   head_grad,     q_grad, k_grad,      activation};
  });
}

TEST_CASE("wrong forms of norms and gelu are refused with the sizes received", "[kernels]") {
  const at::Tensor x = at::zeros({4, 8}, at::TensorOptions(device()).dtype(at::kFloat));
  const at::Tensor eight = at::ones({8}, x.options());
  at::Tensor grad = at::zeros({8}, x.options());
  CHECK(contains(message_of([&] { layer_norm(x, eight, at::ones({7}, x.options()), kEps); }),
                 "layer_norm got sizes [4, 8]"));
  CHECK(contains(message_of([&] { layer_norm_again(x, eight, eight, at::ones({4}, x.options())); }),
                 "two statistics a token"));
  CHECK(contains(message_of([&] { gelu_tanh(x.t()); }), "be contiguous"));
  CHECK(contains(message_of([&] { gelu_tanh_backward(eight, x); }), "grad_output of its size"));
  at::Tensor qkv = at::zeros({2, 1, 32}, x.options());
  const AttentionShape shape = {.heads = 2, .kv_heads = 1, .head_dim = 8};
  CHECK(contains(message_of([&] {
                   head_rms_norm_(qkv, {.q_weight = eight, .k_weight = x, .eps = kEps}, shape);
                 }),
                 "weights of the size of a head"));
  CHECK(contains(message_of([&] {
                   head_rms_norm_backward_(qkv, qkv, {.q_weight = eight, .k_weight = eight}, shape,
                                           grad, grad);
                 }),
                 "have an input [S, B, (heads + kv_heads) * D]"));
}
