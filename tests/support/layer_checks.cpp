#include "support/layer_checks.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/generated/variable_factories.h>

#include <string>
#include <vector>

#include "model/decoder.h"
#include "support/catch.h"
#include "support/reference_decoder.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/regions.h"
#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::testing {

namespace {

using sharding::Parameter;
using tensor_parallel::Bias;
using tensor_parallel::ColumnParallelLinear;
using tensor_parallel::RowParallelLinear;

// fp32 sums of a few hundred terms in another order differ by some 1e-7 of the largest element.
constexpr double kTolerance = 1e-5;
constexpr int64_t kTokens = 6;  // S = 3, B = 2

class NoObserver final : public tensor_parallel::BlockObserver {
 public:
  void before_forward(int) override {}
  void after_forward(int) override {}
  void before_backward(int) override {}
  void after_backward(int) override {}
};

// The same values on every rank: sharding's generator, not ATen's, whose state a test would share.
at::Tensor values(const std::string& name, const std::vector<int64_t>& shape) {
  const sharding::ShardSpec spec = sharding::whole_tensor(name, shape);
  at::Tensor flat = at::empty({spec.global_numel()}, at::kFloat);
  const sharding::Init normal = {.kind = sharding::Init::Kind::normal, .std = 1.0};
  sharding::fill_initial(flat, spec, 0, flat.numel(), normal, /*seed=*/3);
  return flat.view(shape);
}

at::Tensor leaf(const at::Tensor& tensor) { return tensor.clone().requires_grad_(true); }

// This rank's columns of each of several packed tensors, side by side, as a packed layer gives
// them.
at::Tensor local_columns(const std::vector<at::Tensor>& outputs, const comm::Communicator& tp) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& output : outputs) {
    const int64_t width = output.size(-1) / tp.size();
    parts.push_back(output.narrow(-1, tp.rank() * width, width));
  }
  return at::cat(parts, -1);
}

at::Tensor token_ids(const std::string& name, int64_t length, int64_t batch, int64_t vocab_size) {
  return (values(name, {length, batch}).abs() * 1e4).to(at::kLong).remainder(vocab_size);
}

model::DecoderConfig small_decoder() {
  model::DecoderConfig config;
  config.vocab_size = 32;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 8;  // heads * head_dim is twice the hidden size: nothing may assume them equal
  return config;
}

struct NamedConfig {
  std::string name;
  model::DecoderConfig config;
};

std::vector<NamedConfig> decoder_variants() {
  model::DecoderConfig plain = small_decoder();
  model::DecoderConfig biased = small_decoder();
  biased.qkv_bias = true;
  biased.o_bias = true;
  model::DecoderConfig tied = small_decoder();
  tied.tie_word_embeddings = true;
  model::DecoderConfig qwen2 = small_decoder();
  qwen2.model_type = "qwen2";
  qwen2.qkv_bias = true;
  qwen2.tie_word_embeddings = true;
  qwen2.num_key_value_heads = 8;  // no groups
  qwen2.rope_theta = 1e6;
  model::DecoderConfig one_layer = small_decoder();
  one_layer.num_hidden_layers = 1;
  return {{"llama", plain},
          {"llama with attention_bias", biased},
          {"llama, tied", tied},
          {"qwen2", qwen2},
          {"one layer", one_layer}};
}

struct Batch {
  at::Tensor ids;      // [S, B]
  at::Tensor targets;  // [S, B], some ignored
};

Batch make_batch(const std::string& name, const model::DecoderConfig& config) {
  constexpr int64_t length = 7;
  constexpr int64_t batch = 2;
  Batch result{.ids = token_ids(name + "/ids", length, batch, config.vocab_size),
               .targets = token_ids(name + "/targets", length, batch, config.vocab_size)};
  result.targets[2][0] = -100;
  result.targets[6][1] = -100;
  return result;
}

}  // namespace

void check_column_parallel_linear(comm::Communicator& tp) {
  for (const Bias bias : {Bias::none, Bias::learned}) {
    CAPTURE(bias == Bias::learned);
    ColumnParallelLinear layer(
        {.name = "packed", .outputs = {{"q", 12}, {"k", 4}}, .in_features = 8, .bias = bias}, tp);
    const Tensors weights = {{"q.weight", values("q", {12, 8})},
                             {"k.weight", values("k", {4, 8})},
                             {"q.bias", values("qb", {12})},
                             {"k.bias", values("kb", {4})}};
    bind_parameters(layer.parameters(), weights);
    Tensors leaves;
    for (const auto& [name, weight] : weights) leaves[name] = leaf(weight);

    const at::Tensor x = leaf(values("x", {3, 2, 8}));
    const at::Tensor reference_x = leaf(values("x", {3, 2, 8}));
    const at::Tensor grad_q = values("gq", {3, 2, 12});
    const at::Tensor grad_k = values("gk", {3, 2, 4});
    at::Tensor q = at::matmul(reference_x, leaves["q.weight"].t());
    at::Tensor k = at::matmul(reference_x, leaves["k.weight"].t());
    if (bias == Bias::learned) {
      q = q + leaves["q.bias"];
      k = k + leaves["k.bias"];
    }
    ((q * grad_q).sum() + (k * grad_k).sum()).backward();

    const int64_t all_reduces_before = tp.counters().all_reduces;
    const at::Tensor y = layer.forward(x);
    CHECK(relative_error(y, local_columns({q.detach(), k.detach()}, tp)) < kTolerance);
    y.backward(local_columns({grad_q, grad_k}, tp));
    CHECK(relative_error(x.grad(), reference_x.grad()) < kTolerance);
    // One for all packed outputs, and none in forward.
    if (tp.size() > 1) CHECK(tp.counters().all_reduces - all_reduces_before == 1);

    Tensors gradients;
    for (const auto& [name, weight] : leaves) {
      if (weight.grad().defined()) gradients[name] = weight.grad();
    }
    const GradientError error = gradient_error(layer.parameters(), gradients);
    CAPTURE(error.name);
    CHECK(error.worst < kTolerance);
  }
}

void check_row_parallel_linear(comm::Communicator& tp) {
  for (const Bias bias : {Bias::none, Bias::learned}) {
    CAPTURE(bias == Bias::learned);
    RowParallelLinear layer({.name = "o", .in_features = 8, .out_features = 6, .bias = bias}, tp);
    const Tensors weights = {{"o.weight", values("o", {6, 8})}, {"o.bias", values("ob", {6})}};
    bind_parameters(layer.parameters(), weights);
    const at::Tensor weight = leaf(weights.at("o.weight"));
    const at::Tensor bias_leaf = leaf(weights.at("o.bias"));

    const at::Tensor whole_x = values("x", {3, 2, 8});
    const at::Tensor x = leaf(local_columns({whole_x}, tp));
    const at::Tensor reference_x = leaf(whole_x);
    const at::Tensor grad = values("g", {3, 2, 6});
    at::Tensor expected = at::matmul(reference_x, weight.t());
    if (bias == Bias::learned) expected = expected + bias_leaf;
    (expected * grad).sum().backward();

    const int64_t all_reduces_before = tp.counters().all_reduces;
    const at::Tensor y = layer.forward(x);
    CHECK(relative_error(y, expected.detach()) < kTolerance);
    y.backward(grad);
    CHECK(relative_error(x.grad(), local_columns({reference_x.grad()}, tp)) < kTolerance);
    if (tp.size() > 1) CHECK(tp.counters().all_reduces - all_reduces_before == 1);

    Tensors gradients = {{"o.weight", weight.grad()}};
    if (bias == Bias::learned) gradients["o.bias"] = bias_leaf.grad();
    const GradientError error = gradient_error(layer.parameters(), gradients);
    CAPTURE(error.name);
    CHECK(error.worst < kTolerance);
  }
}

void check_vocab_parallel_embedding(comm::Communicator& tp) {
  const auto table = tensor_parallel::vocab_parallel_table(
      {.name = "embed", .vocab_size = 16, .hidden_size = 4}, tp);
  const at::Tensor whole = values("table", {16, 4});
  bind_parameters({table.get()}, {{"embed.weight", whole}});
  const at::Tensor reference_table = leaf(whole);

  at::Tensor ids = token_ids("ids", 5, 3, 16);
  ids[0][0] = 0;  // both ends of the vocabulary, and rows that occur twice
  ids[1][0] = 15;
  ids[2][0] = 15;
  const at::Tensor grad = values("g", {5, 3, 4});
  const at::Tensor expected = at::index_select(reference_table, 0, ids.flatten()).view({5, 3, 4});
  (expected * grad).sum().backward();

  const at::Tensor anchor = at::zeros({}).requires_grad_(true);
  const at::Tensor y = tensor_parallel::vocab_parallel_embedding(ids, *table, anchor, tp);
  CHECK(at::equal(y.detach(), expected.detach()));  // a look-up rounds nothing
  y.backward(grad);
  CHECK(gradient_error({table.get()}, {{"embed.weight", reference_table.grad()}}).worst <
        kTolerance);
}

void check_vocab_parallel_cross_entropy(comm::Communicator& tp) {
  const at::Tensor whole = values("logits", {kTokens, 16}) * 4;
  at::Tensor targets = token_ids("targets", kTokens, 1, 16).flatten();
  targets[0] = 0;
  targets[1] = 15;
  targets[2] = -100;
  const at::Tensor inverse = at::scalar_tensor(1.0 / 9, at::kFloat);

  const at::Tensor reference_logits = leaf(whole);
  const at::Tensor expected =
      at::cross_entropy_loss(reference_logits, targets, /*weight=*/{}, at::Reduction::Sum, -100) *
      inverse;
  (expected * 3).backward();

  // The function consumes its input, as the head's logits are consumed: hand it one that is no
  // leaf.
  const at::Tensor local = leaf(local_columns({whole}, tp).contiguous());
  const at::Tensor loss =
      tensor_parallel::vocab_parallel_cross_entropy(local * 1.0, targets, inverse, tp);
  CHECK(relative_error(loss, expected.detach()) < 1e-6);
  (loss * 3).backward();
  CHECK(relative_error(local.grad(), local_columns({reference_logits.grad()}, tp)) < kTolerance);
}

void check_regions(comm::Communicator& tp) {
  // Each rank multiplies by rank + 1: forward and backward must see the sum of the factors.
  const double sum_of_factors = tp.size() * (tp.size() + 1) / 2.0;
  const at::Tensor x = leaf(values("x", {3, 2}));
  const at::Tensor inside = tensor_parallel::copy_to_region(x, tp);
  CHECK(at::equal(inside.detach(), x.detach()));
  const at::Tensor outside = tensor_parallel::reduce_from_region(inside * (tp.rank() + 1.0), tp);
  CHECK(relative_error(outside, x.detach() * sum_of_factors) < kTolerance);
  outside.backward(at::ones({3, 2}));
  CHECK(relative_error(x.grad(), at::full({3, 2}, sum_of_factors)) < kTolerance);
}

void check_decoder_against_reference(comm::Communicator& tp) {
  NoObserver observer;
  for (const NamedConfig& variant : decoder_variants()) {
    INFO(variant.name);
    const Tensors weights = noisy_weights(variant.config, /*seed=*/5);
    const Batch batch = make_batch("batch", variant.config);
    const ReferenceResult expected =
        reference_step(variant.config, weights, batch.ids, batch.targets, 1.0 / 12);

    model::Decoder decoder(variant.config, tp);
    bind_parameters(decoder.parameters(), weights);
    const at::Tensor loss =
        decoder.loss(batch.ids, batch.targets, at::scalar_tensor(1.0 / 12, at::kFloat), observer);
    CHECK(relative_error(loss, expected.loss) < 2e-6);
    loss.backward();
    const GradientError error = gradient_error(decoder.parameters(), expected.gradients);
    INFO(error.name);
    CHECK(error.worst < kTolerance);
  }
}

void check_gradients_accumulate(comm::Communicator& tp) {
  NoObserver observer;
  model::DecoderConfig config = small_decoder();
  config.tie_word_embeddings = true;  // two uses add into one table
  config.qkv_bias = true;
  const Tensors weights = noisy_weights(config, /*seed=*/6);
  model::Decoder decoder(config, tp);
  bind_parameters(decoder.parameters(), weights);
  const at::Tensor inverse = at::scalar_tensor(1.0 / 24, at::kFloat);

  Tensors expected;
  for (const std::string name : {"first", "second"}) {
    const Batch batch = make_batch(name, config);
    decoder.loss(batch.ids, batch.targets, inverse, observer).backward();
    const ReferenceResult reference =
        reference_step(config, weights, batch.ids, batch.targets, 1.0 / 24);
    for (const auto& [tensor, gradient] : reference.gradients) {
      expected[tensor] = expected.count(tensor) ? expected[tensor] + gradient : gradient;
    }
  }
  const GradientError error = gradient_error(decoder.parameters(), expected);
  INFO(error.name);
  CHECK(error.worst < kTolerance);
}

void check_generation_against_reference(comm::Communicator& tp) {
  for (const NamedConfig& variant : decoder_variants()) {
    INFO(variant.name);
    const model::DecoderConfig& config = variant.config;
    const Tensors weights = noisy_weights(config, /*seed=*/7);
    model::Decoder decoder(config, tp);
    bind_parameters(decoder.parameters(), weights);
    const at::Tensor ids = token_ids("prompt", 9, 2, config.vocab_size);
    const at::Tensor expected = reference_logits(config, weights, ids);  // [S, B, V]

    const std::vector<std::vector<int64_t>> chunkings = {
        {9}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {5, 1, 3}, {2, 7}};
    for (const std::vector<int64_t>& chunks : chunkings) {
      const auto cache = decoder.make_cache(/*batch=*/2, /*max_length=*/9);
      int64_t position = 0;
      for (const int64_t chunk : chunks) {
        const at::Tensor logits = decoder.next_token_logits(ids.narrow(0, position, chunk), *cache);
        position += chunk;
        CAPTURE(position, chunk);
        CHECK(relative_error(logits, expected[position - 1]) < kTolerance);
      }
      CHECK(cache->length() == 9);
    }
  }
}

void check_collectives_per_layer(comm::Communicator& tp) {
  if (tp.size() == 1) return;
  NoObserver observer;
  struct Count {
    int64_t forward = 0;
    int64_t backward = 0;
  };
  const auto count = [&](int64_t layers) {
    model::DecoderConfig config = small_decoder();
    config.num_hidden_layers = layers;
    model::Decoder decoder(config, tp);
    bind_parameters(decoder.parameters(), noisy_weights(config, /*seed=*/8));
    const Batch batch = make_batch("batch", config);
    const int64_t begin = tp.counters().all_reduces;
    const at::Tensor loss =
        decoder.loss(batch.ids, batch.targets, at::scalar_tensor(1.0 / 12, at::kFloat), observer);
    const int64_t middle = tp.counters().all_reduces;
    loss.backward();
    return Count{.forward = middle - begin, .backward = tp.counters().all_reduces - middle};
  };
  const Count one = count(1);
  const Count three = count(3);
  CHECK(three.forward - one.forward == 2 * 2);
  CHECK(three.backward - one.backward == 2 * 2);
  CHECK(one.forward == 2 + 3);   // embedding; row maxima and sums of the cross entropy
  CHECK(one.backward == 2 + 1);  // gradient into the head
}

}  // namespace tptrain::testing
