// RMSNorm, SwiGLU and rotary embedding against plain ATen with autograd in fp64. Sizes are odd on
// purpose: 7 leaves only a vector loop's tail, 172 (Llama's ffn cut to a quarter of 688) a body and
// a tail, T = 1 a single row, 130 rows more than one partial sum.
#include "kernels/kernels.h"
#include "kernels/reference.h"

using namespace tptrain::kernels;
using namespace tptrain::testing;

namespace {

constexpr double kEps = 1e-5;

at::Tensor reference_rms_norm(const at::Tensor& x, const at::Tensor& weight) {
  return x * at::rsqrt((x * x).mean(-1, true) + kEps) * weight;
}

struct Size {
  int64_t tokens;
  int64_t columns;
};
// The last ones: rows that the CUDA kernels hold in a warp, in a block and not at all.
const std::vector<Size> kSizes = {{1, 7},    {1, 172},  {5, 7},    {130, 172}, {33, 256},
                                  {600, 64}, {70, 768}, {9, 896},  {5, 1000},  {3, 1536},
                                  {7, 4096}, {3, 7168}, {2, 9216}, {3, 1001}};

}  // namespace

TEST_CASE("rms_norm and its gradients match autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Size size : kSizes) {
    for (const Precision precision : precisions()) {
      CAPTURE(size.tokens, size.columns, precision.type);
      const at::Tensor x = leaf(normal({size.tokens, size.columns}, 1));
      const at::Tensor weight = leaf(normal({size.columns}, 2));
      const at::Tensor grad = normal({size.tokens, size.columns}, 3);
      const at::Tensor expected = reference_rms_norm(x, weight);
      expected.backward(grad);

      const at::Tensor local_x = on_device(x.detach(), precision.type);
      const at::Tensor local_weight = on_device(weight.detach(), precision.type);
      const RmsNormResult result = rms_norm(local_x, local_weight, kEps);
      CHECK(result.output.scalar_type() == precision.type);
      CHECK(result.inverse_rms.sizes() == at::IntArrayRef({size.tokens}));
      CHECK_CLOSE(result.output, expected, precision.tolerance);

      // Added to what is there: the second half of a gradient accumulation.
      at::Tensor weight_grad = at::ones(
          {size.columns},
          local_x.options().dtype(precision.type == at::kDouble ? at::kDouble : at::kFloat));
      const at::Tensor grad_x = rms_norm_backward(on_device(grad, precision.type), local_x,
                                                  local_weight, result.inverse_rms, weight_grad);
      CHECK_CLOSE(grad_x, x.grad(), precision.tolerance);
      CHECK_CLOSE(weight_grad - 1.0, weight.grad(), precision.tolerance);
    }
  }
}

TEST_CASE("add_rms_norm and its gradients match autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Size size : kSizes) {
    for (const Precision precision : precisions()) {
      CAPTURE(size.tokens, size.columns, precision.type);
      const at::Tensor residual = leaf(normal({size.tokens, 1, size.columns}, 1));
      const at::Tensor delta = leaf(normal({size.tokens, 1, size.columns}, 4));
      const at::Tensor weight = leaf(normal({size.columns}, 2));
      const at::Tensor grad_output = normal({size.tokens, 1, size.columns}, 3);
      const at::Tensor grad_sum = normal({size.tokens, 1, size.columns}, 5);
      const at::Tensor sum = residual + delta;
      const at::Tensor output = reference_rms_norm(sum, weight);
      ((output * grad_output).sum() + (sum * grad_sum).sum()).backward();

      const at::Tensor local_weight = on_device(weight.detach(), precision.type);
      const AddRmsNormResult result =
          add_rms_norm(on_device(residual.detach(), precision.type),
                       on_device(delta.detach(), precision.type), local_weight, kEps);
      CHECK_CLOSE(result.sum, sum, precision.tolerance);
      CHECK_CLOSE(result.norm.output, output, precision.tolerance);

      at::Tensor weight_grad = at::zeros(
          {size.columns},
          local_weight.options().dtype(precision.type == at::kDouble ? at::kDouble : at::kFloat));
      const at::Tensor grad = add_rms_norm_backward(
          on_device(grad_sum, precision.type), on_device(grad_output, precision.type), result.sum,
          local_weight, result.norm.inverse_rms, weight_grad);
      CHECK_CLOSE(grad, residual.grad(), precision.tolerance);
      CHECK_CLOSE(grad, delta.grad(), precision.tolerance);
      CHECK_CLOSE(weight_grad, weight.grad(), precision.tolerance);
    }
  }
}

TEST_CASE("rms_norm_again is the forward's output bit for bit", "[kernels]") {
  for (const Size size : kSizes) {
    for (const Precision precision : precisions()) {
      for (const int threads : {1, 2}) {
        CAPTURE(size.tokens, size.columns, precision.type, threads);
        const at::Tensor x = on_device(normal({size.tokens, 1, size.columns}, 1), precision.type);
        const at::Tensor delta =
            on_device(normal({size.tokens, 1, size.columns}, 4), precision.type);
        const at::Tensor weight = on_device(normal({size.columns}, 2), precision.type);
        at::set_num_threads(threads);
        const RmsNormResult alone = rms_norm(x, weight, kEps);
        const AddRmsNormResult added = add_rms_norm(x, delta, weight, kEps);
        at::set_num_threads(1);
        CHECK(same_bits(rms_norm_again(x, weight, alone.inverse_rms), alone.output));
        CHECK(same_bits(rms_norm_again(added.sum, weight, added.norm.inverse_rms),
                        added.norm.output));
      }
    }
  }
}

TEST_CASE("equal rows of a norm get equal bits wherever they lie", "[kernels]") {
  for (const int64_t columns : {7, 172, 768, 896, 4096, 9216}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      CAPTURE(columns, type);
      const at::Tensor row = on_device(normal({1, columns}, 1), type);
      const at::Tensor grad_row = on_device(normal({1, columns}, 3), type);
      const at::Tensor weight = on_device(normal({columns}, 2), type);
      const auto run = [&](const at::Tensor& x, const at::Tensor& grad) {
        const RmsNormResult result = rms_norm(x, weight, kEps);
        at::Tensor unused = at::zeros({columns}, weight.options().dtype(at::kFloat));
        return std::vector<at::Tensor>{
            result.output, rms_norm_backward(grad, x, weight, result.inverse_rms, unused)};
      };
      const std::vector<at::Tensor> alone = run(row, grad_row);
      const std::vector<at::Tensor> many =
          run(row.repeat({301, 1}).contiguous(), grad_row.repeat({301, 1}).contiguous());
      for (size_t i = 0; i < alone.size(); ++i)
        CHECK(same_bits(many[i], alone[i].repeat({301, 1})));
    }
  }
}

TEST_CASE("in bf16 the sum is rounded once, and the norm is of the sum as stored", "[kernels]") {
  at::set_num_threads(1);
  const at::Tensor residual = on_device(normal({70, 172}, 14), at::kBFloat16);
  const at::Tensor delta = on_device(normal({70, 172}, 15, 0.01), at::kBFloat16);
  const at::Tensor weight = on_device(normal({172}, 16), at::kBFloat16);
  const AddRmsNormResult result = add_rms_norm(residual, delta, weight, kEps);
  const at::Tensor exact = residual.to(at::kDouble) + delta.to(at::kDouble);
  CHECK(same_bits(result.sum, exact.to(at::kFloat).to(at::kBFloat16)));
  const at::Tensor stored = result.sum.cpu().to(at::kDouble);
  CHECK(elementwise_error(result.norm.output,
                          reference_rms_norm(stored, weight.cpu().to(at::kDouble))) <=
        kOneBf16Rounding);
  // The inverse of the rounded sum, not of the exact one: up to 4e-3 apart in an element, but still
  // 1e-4 in the mean of 172.
  CHECK(elementwise_error(result.norm.inverse_rms, at::rsqrt((stored * stored).mean(-1) + kEps)) <=
        1e-6);
}

TEST_CASE("bf16 rounds once: arithmetic between load and store is fp32", "[kernels]") {
  at::set_num_threads(1);
  for (const Size size : kSizes) {
    CAPTURE(size.tokens, size.columns);
    const at::Tensor x = normal({size.tokens, size.columns}, 17);
    const at::Tensor weight = normal({size.columns}, 18);
    CHECK(elementwise_error(
              rms_norm(on_device(x, at::kBFloat16), on_device(weight, at::kBFloat16), kEps).output,
              reference_rms_norm(x, weight)) <= kOneBf16Rounding);
    const at::Tensor gate_up = normal({size.tokens, 2 * size.columns}, 19, 2.0);
    const at::Tensor gate = gate_up.narrow(1, 0, size.columns);
    const at::Tensor up = gate_up.narrow(1, size.columns, size.columns);
    CHECK(elementwise_error(swiglu(on_device(gate_up, at::kBFloat16)), at::silu(gate) * up) <=
          kOneBf16Rounding);
  }
}

TEST_CASE("NaN and infinity survive the rounding to bf16", "[kernels]") {
  at::set_num_threads(1);
  at::Tensor x = on_device(normal({2, 172}, 20), at::kBFloat16);
  const at::Tensor weight = at::ones({172}, x.options());
  x[1][171] = std::numeric_limits<double>::quiet_NaN();
  const RmsNormResult result = rms_norm(x, weight, kEps);
  CHECK(result.output[1].isnan().all().item<bool>());
  CHECK(result.output[0].isfinite().all().item<bool>());
  at::Tensor gate_up = at::full({1, 4}, 3e38, x.options());  // silu(3e38) * 3e38
  CHECK(swiglu(gate_up).isinf().all().item<bool>());
}

TEST_CASE("swiglu and its gradient match autograd", "[kernels]") {
  at::set_num_threads(1);
  for (const Size size : kSizes) {
    for (const Precision precision : fused_precisions()) {
      CAPTURE(size.tokens, size.columns, precision.type);
      const at::Tensor gate_up = leaf(normal({size.tokens, 2 * size.columns}, 6, 4.0));
      const at::Tensor grad = normal({size.tokens, size.columns}, 7);
      const at::Tensor expected = at::silu(gate_up.narrow(1, 0, size.columns)) *
                                  gate_up.narrow(1, size.columns, size.columns);
      expected.backward(grad);

      const at::Tensor local = on_device(gate_up.detach(), precision.type);
      CHECK_CLOSE(swiglu(local), expected, precision.tolerance);
      CHECK_CLOSE(swiglu_backward(on_device(grad, precision.type), local), gate_up.grad(),
                  precision.tolerance);
    }
  }
}

TEST_CASE("swiglu keeps silu's limits over the whole range of fp32", "[kernels]") {
  at::set_num_threads(1);
  // From where exp(-gate) overflows to where it vanishes, past the denormals.
  const at::Tensor gate = at::linspace(-200.0, 200.0, 40001, at::kFloat);
  const at::Tensor gate_up =
      at::cat({gate.unsqueeze(1), at::ones_like(gate).unsqueeze(1)}, 1).to(device());
  const at::Tensor expected = at::silu(gate.to(at::kDouble));
  const at::Tensor received = swiglu(gate_up).cpu().to(at::kDouble).squeeze(1);
  // Relative to each element. The floor: beyond a gate of -88.7 exp(-gate) overflows and the output
  // is 0 instead of 3e-37, in ATen as here.
  CHECK(((received - expected).abs() / (expected.abs() + 1e-30)).max().item<double>() < 6e-7);
  const at::Tensor grad = swiglu_backward(at::ones({40001, 1}, gate_up.options()), gate_up);
  CHECK(grad.isfinite().all().item<bool>());
}

TEST_CASE("rms_norm, swiglu and their gradients let NaN and infinity through", "[kernels]") {
  at::set_num_threads(1);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const int64_t column : {0, 5, 171}) {
    at::Tensor x = normal({3, 172}, 8).to(device(), at::kFloat);
    const at::Tensor weight = at::ones({172}, x.options());
    x[1][column] = nan;
    const RmsNormResult result = rms_norm(x, weight, kEps);
    CHECK(result.output[1].isnan().all().item<bool>());
    CHECK(result.output[0].isfinite().all().item<bool>());
    CHECK(result.output[2].isfinite().all().item<bool>());
    at::Tensor weight_grad = at::zeros({172}, x.options());
    const at::Tensor grad =
        rms_norm_backward(at::ones_like(x), x, weight, result.inverse_rms, weight_grad);
    CHECK(grad[1].isnan().all().item<bool>());
    CHECK(weight_grad.isnan().all().item<bool>());

    at::Tensor gate_up = normal({3, 344}, 9).to(device(), at::kFloat);
    gate_up[1][column] = nan;
    gate_up[2][172 + column] = infinity;
    const at::Tensor output = swiglu(gate_up);
    CHECK(output[1][column].isnan().item<bool>());
    CHECK(output[2][column].isinf().item<bool>());
    CHECK(output[0].isfinite().all().item<bool>());
    CHECK(swiglu_backward(at::ones({3, 172}, gate_up.options()), gate_up)[1][column]
              .isnan()
              .item<bool>());
  }
}

TEST_CASE("rotary_table holds the angles of Hugging Face, rounded once", "[kernels]") {
  const RotaryTable table = rotary_table(1000, 3, 8, 10000.0, device());
  REQUIRE(table.cos.sizes() == at::IntArrayRef({3, 4}));
  for (int64_t s = 0; s < 3; ++s) {
    for (int64_t i = 0; i < 4; ++i) {
      const double angle =
          static_cast<double>(1000 + s) * std::pow(10000.0, -static_cast<double>(i) / 4.0);
      CHECK(table.cos[s][i].item<float>() == static_cast<float>(std::cos(angle)));
      CHECK(table.sin[s][i].item<float>() == static_cast<float>(std::sin(angle)));
    }
  }
}

TEST_CASE(
    "rotate_ turns q and k as rotate_half does, leaves v alone, and its inverse is its gradient",
    "[kernels]") {
  at::set_num_threads(1);
  struct Case {
    int64_t positions, batch, heads, rotated, head_dim;
  };
  for (const Case c :
       {Case{1, 1, 3, 2, 2}, Case{7, 3, 5, 4, 6}, Case{16, 2, 16, 12, 32}, Case{9, 1, 4, 3, 128}}) {
    for (const Precision precision : fused_precisions()) {
      CAPTURE(c.positions, c.batch, c.heads, c.head_dim, precision.type);
      const at::Tensor qkv = leaf(normal({c.positions, c.batch, c.heads * c.head_dim}, 10));
      const at::Tensor grad = normal({c.positions, c.batch, c.heads * c.head_dim}, 11);
      const RotaryTable table = rotary_table(3, c.positions, c.head_dim, 10000.0, device());
      const at::Tensor cos = at::cat({table.cos, table.cos}, 1)
                                 .cpu()
                                 .to(at::kDouble)
                                 .view({c.positions, 1, 1, c.head_dim});
      const at::Tensor sin = at::cat({table.sin, table.sin}, 1)
                                 .cpu()
                                 .to(at::kDouble)
                                 .view({c.positions, 1, 1, c.head_dim});
      const at::Tensor heads = qkv.view({c.positions, c.batch, c.heads, c.head_dim});
      const at::Tensor turned = heads.narrow(2, 0, c.rotated);
      const at::Tensor rotate_half = at::cat(
          {-turned.narrow(3, c.head_dim / 2, c.head_dim / 2), turned.narrow(3, 0, c.head_dim / 2)},
          3);
      const at::Tensor expected = at::cat({turned * cos + rotate_half * sin,
                                           heads.narrow(2, c.rotated, c.heads - c.rotated)},
                                          2)
                                      .view_as(qkv);
      expected.backward(grad);

      const at::Tensor original = on_device(qkv.detach(), precision.type);
      at::Tensor received = original.clone();
      rotate_(received, table, c.rotated, c.head_dim, Rotation::forward);
      CHECK_CLOSE(received, expected, precision.tolerance);
      CHECK(same_bits(received.slice(2, c.rotated * c.head_dim),
                      original.slice(2, c.rotated * c.head_dim)));

      rotate_(received, table, c.rotated, c.head_dim, Rotation::inverse);
      CHECK_CLOSE(received, original, precision.tolerance);

      at::Tensor received_grad = on_device(grad, precision.type).clone();
      rotate_(received_grad, table, c.rotated, c.head_dim, Rotation::inverse);
      CHECK_CLOSE(received_grad, qkv.grad(), precision.tolerance);
    }
  }
}

TEST_CASE("the fused loops repeat bit for bit, and two threads agree with one", "[kernels]") {
  check_repeats_on_threads([](at::ScalarType type) {
    const at::Tensor x = normal({700, 172}, 12).to(device(), type);
    const at::Tensor weight = normal({172}, 13).to(device(), type);
    const RmsNormResult result = rms_norm(x, weight, kEps);
    at::Tensor weight_grad = at::zeros({172}, x.options().dtype(at::kFloat));
    const at::Tensor grad = rms_norm_backward(x, x, weight, result.inverse_rms, weight_grad);
    const at::Tensor activation = swiglu(x);
    return std::vector<at::Tensor>{result.output, grad, weight_grad, activation};
  });
}

TEST_CASE("a wrong form is refused with the sizes that were received", "[kernels]") {
  const at::Tensor x = at::zeros({4, 8}, at::TensorOptions(device()).dtype(at::kFloat));
  CHECK(contains(message_of([&] { rms_norm(x, at::ones({7}, x.options()), kEps); }),
                 "rms_norm got sizes [4, 8]"));
  CHECK(contains(message_of([&] { rms_norm(x.t(), at::ones({4}, x.options()), kEps); }),
                 "be contiguous"));
  CHECK(contains(message_of([&] { swiglu(at::zeros({4, 7}, x.options())); }), "even last size"));
  CHECK(contains(message_of([&] {
                   rms_norm_again(x, at::ones({8}, x.options()), at::ones({3}, x.options()));
                 }),
                 "one inverse_rms a token"));
  if (device().is_cpu()) {
    CHECK(contains(
        message_of([&] { rms_norm(x.to(at::kBFloat16), at::ones({8}, x.options()), kEps); }),
        "in one type"));
  }
}
