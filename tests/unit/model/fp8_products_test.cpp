// The FP8 products of a model on what its own forward and backward give them: how far each is from
// fp64, and what its casts lose. On the CPU and on CUDA.
#include <ATen/ATen.h>

#include <cmath>
#include <map>
#include <string>

#include "kernels/fp8.h"
#include "model/decoder.h"
#include "support/catch.h"
#include "support/reference_decoder.h"
#include "tensor_parallel/block_observer.h"
#include "tensor_parallel/fp8_counters.h"

#ifndef TPTRAIN_TEST_DEVICE
#define TPTRAIN_TEST_DEVICE "cpu"
#endif

namespace tptrain::model {
namespace {

using kernels::Fp8;
using kernels::Fp8Form;
using kernels::Fp8Matrix;
using kernels::Fp8Sums;

const at::Device kDevice(TPTRAIN_TEST_DEVICE);

DecoderConfig quick_start_shape() {
  DecoderConfig config;
  config.model_type = "llama";
  config.vocab_size = 272;
  config.hidden_size = 192;
  config.intermediate_size = 512;
  config.num_hidden_layers = 4;
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 32;
  return config;
}

/// What each linear multiplies in one micro-batch.
class Capture final : public tensor_parallel::Fp8Observer {
 public:
  struct Operands {
    at::Tensor input, weight, gradient;
  };
  void cast(const parameters::Parameter& weight, Of of, const at::Tensor& values,
            const Fp8Matrix& cast) override {
    Operands& operands = of_linear[weight.name];
    (of == Of::input    ? operands.input
     : of == Of::weight ? operands.weight
                        : operands.gradient) = values.clone();
    counters.cast(weight, of, values, cast);
  }
  std::map<std::string, Operands> of_linear;
  tensor_parallel::Fp8Counters counters{at::Device(at::kCPU)};
};

/// Of a [M, K] times b [N, K]^T against fp64.
double signal_to_noise_db(const at::Tensor& a, Fp8 a_type, const at::Tensor& b, Fp8Sums sums) {
  const auto cast = [](const at::Tensor& x, Fp8 type) {
    return kernels::to_fp8(x.to(kDevice).contiguous(), type, Fp8Form::rows);
  };
  const Fp8Matrix left = cast(a, a_type), right = cast(b, Fp8::e4m3);
  at::Tensor out =
      at::empty({a.size(0), b.size(0)}, at::TensorOptions().dtype(at::kFloat).device(kDevice));
  kernels::fp8_product_out(out, {left.rows, left.scale}, {right.rows, right.scale}, sums);
  const at::Tensor exact = at::mm(a.to(at::kDouble), b.to(at::kDouble).t());
  const at::Tensor noise = out.cpu().to(at::kDouble) - exact;
  return 10 * std::log10(exact.square().sum().item<double>() / noise.square().sum().item<double>());
}

class NoBlocks final : public tensor_parallel::BlockObserver {
 public:
  void before_forward(int) override {}
  void after_forward(int) override {}
  void before_backward(int) override {}
  void after_backward(int) override {}
};

/// Of a model's forward and backward at the same weights and on the same data.
struct Gradients {
  double loss = 0;
  double squares = 0;                  // of all elements
  std::map<std::string, double> norm;  // of matrices: a norm's weight has few and small sums
};
Gradients gradients_of(const DecoderConfig& config, const Fp8Layers& fp8) {
  const auto tp = comm::single_rank_communicator("tp");
  Decoder decoder(config, *tp, {.fp8 = fp8});
  testing::bind_parameters(decoder.parameters(), testing::noisy_weights(config, 5));
  for (parameters::Parameter* parameter : decoder.parameters())
    parameter->data = parameter->data.to(at::kBFloat16);
  NoBlocks observer;
  const at::Tensor ids = testing::token_ids("ids", 128, 4, config.vocab_size);
  const at::Tensor targets = testing::token_ids("targets", 128, 4, config.vocab_size);
  const auto loss = decoder.forward_backward(
      {.ids = ids, .targets = targets}, at::scalar_tensor(1.0 / (128 * 4), at::kFloat), observer);
  Gradients result;
  result.loss = loss[0].item<double>();
  for (const parameters::Parameter* parameter : decoder.parameters()) {
    const double squares = parameter->main_grad.to(at::kDouble).square().sum().item<double>();
    if (parameter->shape.size() > 1) result.norm[parameter->name] = std::sqrt(squares);
    result.squares += squares;
  }
  return result;
}

}  // namespace

TEST_CASE("every FP8 product of a model is near fp64 on what the model multiplies", "[fp8]") {
  const DecoderConfig config = quick_start_shape();
  Capture capture;
  gradients_of(config, {.on = true, .observer = &capture});
  CHECK(capture.of_linear.size() == 16);
  double worst[3] = {1e9, 1e9, 1e9};
  for (const auto& [name, of] : capture.of_linear) {
    CAPTURE(name);
    REQUIRE(of.input.defined());
    REQUIRE(of.gradient.defined());
    const auto turned = [](const at::Tensor& x) { return x.t().contiguous(); };
    const double db[] = {
        signal_to_noise_db(of.input, Fp8::e4m3, of.weight, Fp8Sums::fast),
        signal_to_noise_db(of.gradient, Fp8::e5m2, turned(of.weight), Fp8Sums::split),
        signal_to_noise_db(turned(of.gradient), Fp8::e5m2, turned(of.input), Fp8Sums::split)};
    CHECK(db[0] >= 27.0);
    CHECK(db[1] >= 22.0);
    CHECK(db[2] >= 22.0);
    for (int i : {0, 1, 2}) worst[i] = std::min(worst[i], db[i]);
  }
  const auto counts = capture.counters.read();
  WARN("worst signal to noise: fprop " << worst[0] << " dB, dgrad " << worst[1] << " dB, wgrad "
                                       << worst[2] << " dB; of " << counts.elements
                                       << " elements cast " << counts.flushed << " became zero, "
                                       << counts.saturated << " saturated");
  CHECK(counts.elements > 0);
  CHECK(counts.saturated == 0);
  CHECK(static_cast<double>(counts.flushed) < 0.01 * static_cast<double>(counts.elements));
}

// Along two trainings the norms part with the weights; at the same weights they may not.
TEST_CASE("at the same weights FP8's gradients are as large as those of bf16", "[fp8]") {
  const DecoderConfig config = quick_start_shape();
  const Gradients bf16 = gradients_of(config, {}), fp8 = gradients_of(config, {.on = true});
  CHECK(fp8.loss == Approx(bf16.loss).epsilon(1e-3));
  const double ratio = std::sqrt(fp8.squares / bf16.squares);
  CHECK(fp8.squares != bf16.squares);
  CHECK(ratio == Approx(1.0).margin(0.01));
  double least = 1e9, most = 0;
  for (const auto& [name, norm] : bf16.norm) {
    CAPTURE(name);
    const double own = fp8.norm.at(name) / norm;
    CHECK(own == Approx(1.0).margin(0.03));
    least = std::min(least, own);
    most = std::max(most, own);
  }
  WARN("norm of FP8's gradient over bf16's: " << ratio << ", of single matrices " << least << " to "
                                              << most);
}

TEST_CASE("counters of FP8 casts see what became zero and what was too large", "[fp8]") {
  const parameters::Parameter weight;
  using Of = tensor_parallel::Fp8Observer::Of;
  for (const Fp8Form form : {Fp8Form::rows, Fp8Form::columns}) {
    at::Tensor values = at::full({20, 32}, 1.0, at::kBFloat16);
    values[0][0] = 0.0;
    values[3][5] = 1e-12;
    values[19][31] = -3e-30;
    values = values.to(kDevice);
    tensor_parallel::Fp8Counters counters(kDevice);
    const Fp8Matrix cast = kernels::to_fp8(values, Fp8::e4m3, form);
    counters.cast(weight, Of::input, values, cast);
    CHECK(counters.read().elements == 640);
    CHECK(counters.read().flushed == 2);
    CHECK(counters.read().saturated == 0);
    // At the scale of smaller values.
    const at::Tensor scale = at::full({1}, 1.0 / 512, cast.scale.options());
    counters.cast(weight, Of::input, values, kernels::to_fp8(values, Fp8::e4m3, form, scale));
    CHECK(counters.read().elements == 1280);
    CHECK(counters.read().saturated == 637);
  }
}

}  // namespace tptrain::model
