#include "support/adapter_checks.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/adapter.h"
#include "support/catch.h"
#include "support/decoder_model.h"
#include "support/reference_decoder.h"

namespace tptrain::testing {

namespace {

using model::AdapterSite;
using model::DecoderConfig;
using model::Recompute;
using model::TokenBatch;
using model::TrainingOptions;
using parameters::Parameter;
using tensor_parallel::SequenceParallel;

// fp32 sums of a few hundred terms in another order differ by some 1e-7 of the largest element.
constexpr double kTolerance = 1e-5;
constexpr double kLossTolerance = 2e-6;
constexpr SequenceParallel kBoth[] = {SequenceParallel::off, SequenceParallel::on};

struct Adapted {
  std::string name;
  DecoderConfig config;
  config::AdapterConfig adapter;
};

config::AdapterConfig adapter_on(std::vector<std::string> targets,
                                 std::vector<std::string> modules_to_save = {}) {
  return {.rank = 3,
          .alpha = 5.0,
          .targets = std::move(targets),
          .modules_to_save = std::move(modules_to_save)};
}

// Whose heads are together as wide as the hidden state, as the files of the family have them.
DecoderConfig gpt2_of_files() {
  DecoderConfig config = gpt2_like();
  config.num_attention_heads = 4;
  config.num_key_value_heads = 4;
  config.head_dim = 8;
  return config;
}

std::vector<Adapted> adapted_models() {
  DecoderConfig tied = odd_decoder();
  tied.model_type = "qwen2";
  tied.o_bias = false;
  tied.tie_word_embeddings = true;
  tied.num_attention_heads = 6;
  tied.num_key_value_heads = 1;  // tp 4: four copies
  config::AdapterConfig stabilised = adapter_on({"gate_proj", "down_proj"}, {"lm_head", "norm"});
  stabilised.rslora = true;
  return {
      {"llama, all linears", small_decoder(), adapter_on({config::kAllLinear})},
      // v stands apart from q in what packs them.
      {"14 heads, 2 kv heads, q and v", odd_decoder(), adapter_on({"q_proj", "v_proj"})},
      {"one kv head, tied table saved", tied, adapter_on({config::kAllLinear}, {"embed_tokens"})},
      // q, k and v have one A; lm_head is another word for the tied table.
      {"gpt2, tied table saved", gpt2_of_files(), adapter_on({config::kAllLinear}, {"lm_head"})},
      {"gpt2, c_attn alone", gpt2_of_files(), adapter_on({"c_attn"})},
      {"qwen3, head and a norm saved", qwen3_like(), stabilised},
      {"qwen3, o_proj", qwen3_like(), adapter_on({"o_proj"})}};
}

/// The base's weights and an adapter's, which is past its beginning: B is not zero.
Tensors weights_of(const Adapted& adapted) {
  Tensors weights = noisy_weights(adapted.config, /*seed=*/5);
  for (const AdapterSite& site : adapter_sites(adapted.config, adapted.adapter)) {
    const std::string a = site.name + ".lora_A.weight";
    weights[a] = normal_values(a, {adapted.adapter.rank, site.in}) * 0.2;
    for (const AdapterSite::Linear& linear : site.linears) {
      const std::string b = linear.name + ".lora_B.weight";
      weights[b] = normal_values(b, {linear.out, adapted.adapter.rank}) * 0.05;
    }
  }
  return weights;
}

/// W + scale * B A in the place of W.
Tensors merged(const Adapted& adapted, const Tensors& weights) {
  Tensors result = weights;
  const double scale = model::adapter_scale(adapted.adapter);
  for (const AdapterSite& site : adapter_sites(adapted.config, adapted.adapter)) {
    const at::Tensor& a = weights.at(site.name + ".lora_A.weight");
    for (const AdapterSite::Linear& linear : site.linears) {
      at::Tensor& weight = result.at(linear.name + ".weight");
      weight = weight + scale * at::matmul(weights.at(linear.name + ".lora_B.weight"), a);
    }
  }
  return result;
}

/// By the chain rule, from the gradient of the merged weights.
Tensors expected_gradients(const Adapted& adapted, const Tensors& weights, const Tensors& of_all) {
  Tensors expected;
  const double scale = model::adapter_scale(adapted.adapter);
  for (const AdapterSite& site : adapter_sites(adapted.config, adapted.adapter)) {
    const std::string a = site.name + ".lora_A.weight";
    expected[a] = at::zeros_like(weights.at(a));
    for (const AdapterSite::Linear& linear : site.linears) {
      const std::string b = linear.name + ".lora_B.weight";
      const at::Tensor& of_merged = of_all.at(linear.name + ".weight");
      expected[b] = scale * at::matmul(of_merged, weights.at(a).t());
      expected[a] += scale * at::matmul(weights.at(b).t(), of_merged);
    }
  }
  for (const std::string& name : tensors_saved_whole(adapted.config, adapted.adapter))
    expected[name] = of_all.at(name);
  return expected;
}

std::vector<Parameter*> trained(const BoundDecoder& model) {
  std::vector<Parameter*> all;
  for (Parameter* parameter : model.decoder.parameters()) {
    if (parameter->trains) all.push_back(parameter);
  }
  return all;
}

void check_gradients(BoundDecoder& model, const Tensors& expected) {
  size_t slices = 0;
  for (const Parameter* parameter : trained(model)) slices += parameter->slices.size();
  CHECK(slices == expected.size());
  for (const Parameter* parameter : model.decoder.parameters()) {
    CAPTURE(parameter->name);
    if (!parameter->trains) CHECK(at::count_nonzero(parameter->main_grad).item<int64_t>() == 0);
  }
  sum_gradients_over_tp(trained(model), model.tp);
  const GradientError error = gradient_error(trained(model), expected);
  CAPTURE(error.name);
  CHECK(error.worst < kTolerance);
}

TrainingOptions options_of(const Adapted& adapted, SequenceParallel sequence_parallel) {
  return {.sequence_parallel = sequence_parallel, .seed = 11, .adapter = adapted.adapter};
}

void check_logits(BoundDecoder& model, const Adapted& adapted, const Tensors& whole) {
  const at::Tensor ids = token_ids("prompt", 7, 2, adapted.config.vocab_size);
  const at::Tensor expected = reference_logits(adapted.config, whole, ids);  // [S, B, V]
  const auto cache = model.decoder.make_cache(/*batch=*/2, /*max_length=*/7);
  model.decoder.next_token_logits(ids.narrow(0, 0, 6), *cache);
  const at::Tensor logits = model.decoder.next_token_logits(ids.narrow(0, 6, 1), *cache);
  CHECK(relative_error(logits, expected[6]) < kTolerance);
}

}  // namespace

void check_adapters_against_reference(comm::Communicator& tp) {
  for (const Adapted& adapted : adapted_models()) {
    const Tensors weights = weights_of(adapted);
    const Tensors whole = merged(adapted, weights);
    const TokenBatch batch = make_batch("batch", adapted.config);
    const ReferenceResult reference =
        reference_step(adapted.config, whole, batch.ids, batch.targets, 1.0 / 12);
    const Tensors expected = expected_gradients(adapted, weights, reference.gradients);
    for (const SequenceParallel sequence_parallel : kBoth) {
      CAPTURE(adapted.name, sequence_parallel == SequenceParallel::on);
      TrainingOptions options = options_of(adapted, sequence_parallel);
      BoundDecoder plain(adapted.config, tp, options, weights);
      const at::Tensor losses = plain.step(batch);
      CHECK(relative_error(losses[0], reference.loss) < kLossTolerance);
      CHECK(at::equal(plain.evaluate(batch), losses));
      const std::vector<at::Tensor> gradients = plain.gradients();
      check_gradients(plain, expected);
      check_logits(plain, adapted, whole);
      for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
        CAPTURE(recompute == Recompute::full);
        options.recompute = recompute;
        BoundDecoder saving(adapted.config, tp, options, weights);
        CHECK(at::equal(saving.step(batch), losses));
        CHECK(bitwise_equal(saving.gradients(), gradients));
      }
    }
  }
}

namespace {

Adapted with_dropout(Adapted adapted) {
  adapted.adapter.dropout = 0.3;
  return adapted;
}

Tensors gradients_of_one_rank(const Adapted& adapted, const Tensors& weights,
                              const TokenBatch& batch, at::Tensor& losses) {
  const auto alone = comm::single_rank_communicator("tp");
  BoundDecoder model(adapted.config, *alone, options_of(adapted, SequenceParallel::off), weights);
  losses = model.step(batch);
  return global_gradients(trained(model));
}

}  // namespace

void check_adapter_dropout(comm::Communicator& tp) {
  for (const Adapted& plain : adapted_models()) {
    const Adapted adapted = with_dropout(plain);
    const Tensors weights = weights_of(adapted);
    TokenBatch batch = make_batch("batch", adapted.config);
    batch.step = 3;
    at::Tensor losses;
    const Tensors expected = gradients_of_one_rank(adapted, weights, batch, losses);
    for (const SequenceParallel sequence_parallel : kBoth) {
      CAPTURE(adapted.name, sequence_parallel == SequenceParallel::on);
      TrainingOptions options = options_of(adapted, sequence_parallel);
      BoundDecoder model(adapted.config, tp, options, weights);
      const at::Tensor own = model.step(batch);
      CHECK(relative_error(own[0], losses[0]) < kLossTolerance);
      const std::vector<at::Tensor> gradients = model.gradients();
      check_gradients(model, expected);
      options.recompute = Recompute::full;
      BoundDecoder saving(adapted.config, tp, options, weights);
      CHECK(at::equal(saving.step(batch), own));
      CHECK(bitwise_equal(saving.gradients(), gradients));
      // Other numbers at another step, none in evaluation.
      TokenBatch later = batch;
      later.step = 4;
      CHECK_FALSE(at::equal(saving.step(later), own));
      options.adapter = plain.adapter;
      BoundDecoder without(adapted.config, tp, options, weights);
      CHECK(at::equal(saving.evaluate(batch), without.evaluate(batch)));
    }
  }
}

void check_adapter_dropout_gradient() {
  const auto tp = comm::single_rank_communicator("tp");
  for (const Adapted& plain : adapted_models()) {
    const Adapted adapted = with_dropout(plain);
    CAPTURE(adapted.name);
    BoundDecoder model(adapted.config, *tp, options_of(adapted, SequenceParallel::off),
                       weights_of(adapted));
    const TokenBatch batch = make_batch("batch", adapted.config);
    model.step(batch);
    std::vector<at::Tensor> gradients;
    for (const Parameter* parameter : trained(model))
      gradients.push_back(parameter->main_grad.clone());
    for (size_t i = 0; i < gradients.size(); ++i) {
      Parameter& parameter = *trained(model)[i];
      const double slope = gradients[i].norm().item<double>();
      // Wide enough that fp32 rounding of the loss (1e-7 of about 4) is 1e-3 of the difference.
      const double width = 1e-3 / slope;
      const at::Tensor centre = parameter.data.clone();
      const at::Tensor direction = gradients[i] / slope;
      parameter.data.copy_(centre + direction * width);
      const double above = model.step(batch)[0].item<double>();
      parameter.data.copy_(centre - direction * width);
      const double below = model.step(batch)[0].item<double>();
      parameter.data.copy_(centre);
      CAPTURE(parameter.name, slope);
      CHECK((above - below) / (2 * width) / slope == Approx(1.0).margin(0.02));
    }
  }
}

namespace {

int64_t collectives(const comm::Communicator& tp) {
  const comm::CommCounters& counters = tp.counters();
  return counters.all_gathers + counters.reduce_scatters + counters.all_reduces;
}

int64_t collectives_of_step(comm::Communicator& tp, const Adapted& adapted,
                            const TrainingOptions& options) {
  BoundDecoder model(adapted.config, tp, options, weights_of(adapted));
  const int64_t before = collectives(tp);
  model.step(make_batch("batch", adapted.config));
  return collectives(tp) - before;
}

}  // namespace

void check_adapter_collectives(comm::Communicator& tp) {
  for (const Adapted& adapted : adapted_models()) {
    for (const SequenceParallel sequence_parallel : kBoth) {
      for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
        CAPTURE(adapted.name, sequence_parallel == SequenceParallel::on,
                static_cast<int>(recompute));
        TrainingOptions options = options_of(adapted, sequence_parallel);
        options.recompute = recompute;
        const int64_t with_adapters = collectives_of_step(tp, adapted, options);
        options.adapter.reset();
        CHECK(with_adapters <= collectives_of_step(tp, adapted, options));
      }
    }
  }
}

}  // namespace tptrain::testing
