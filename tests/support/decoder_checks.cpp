#include "support/decoder_checks.h"

#include <ATen/ATen.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "model/decoder.h"
#include "support/catch.h"
#include "support/decoder_model.h"
#include "support/reference_decoder.h"

namespace tptrain::testing {

namespace {

using model::Decoder;
using model::DecoderConfig;
using model::Recompute;
using model::TokenBatch;
using model::TrainingOptions;
using parameters::Parameter;
using tensor_parallel::SequenceParallel;

// fp32 sums of a few hundred terms in another order differ by some 1e-7 of the largest element.
constexpr double kTolerance = 1e-5;
constexpr double kLossTolerance = 2e-6;

struct Model : BoundDecoder {
  using BoundDecoder::BoundDecoder;
  void check_gradients(const Tensors& expected) {
    sum_gradients_over_tp(decoder.parameters(), tp);
    const GradientError error = gradient_error(decoder.parameters(), expected);
    INFO(error.name);
    CHECK(error.worst < kTolerance);
  }
};

struct NamedConfig {
  std::string name;
  DecoderConfig config;
  double z_loss = 0.0;
};

// Those that the size of `tp` allows.
std::vector<NamedConfig> decoder_variants(const comm::Communicator& tp) {
  DecoderConfig biased = small_decoder();
  biased.qkv_bias = true;
  biased.o_bias = true;
  DecoderConfig tied = small_decoder();
  tied.tie_word_embeddings = true;
  DecoderConfig qwen2 = small_decoder();
  qwen2.model_type = "qwen2";
  qwen2.qkv_bias = true;
  qwen2.tie_word_embeddings = true;
  qwen2.num_key_value_heads = 8;  // no groups
  qwen2.rope_theta = 1e6;
  DecoderConfig one_layer = small_decoder();
  one_layer.num_hidden_layers = 1;
  DecoderConfig odd_tied = odd_decoder();
  odd_tied.tie_word_embeddings = true;
  odd_tied.num_attention_heads = 6;
  odd_tied.num_key_value_heads = 1;  // tp 4: four copies, 2, 2, 1, 1 query heads
  DecoderConfig three_heads = odd_decoder();
  three_heads.num_attention_heads = 3;
  three_heads.num_key_value_heads = 1;
  DecoderConfig three_kv_heads = odd_decoder();
  three_kv_heads.num_attention_heads = 6;
  three_kv_heads.num_key_value_heads = 3;  // tp 2: 2 and 1 kv heads
  DecoderConfig large = small_decoder();
  large.num_hidden_layers = 1;
  large.vocab_size = 4099;  // cut at multiples of 8 on tp 2 and 4
  DecoderConfig mlp_biased = odd_decoder();
  mlp_biased.mlp_bias = true;
  mlp_biased.rope_scaling = {.kind = model::RotaryScaling::Kind::linear, .factor = 2.5};
  std::vector<NamedConfig> working;
  for (const NamedConfig& variant :
       {NamedConfig{"llama", small_decoder()}, NamedConfig{"llama with attention_bias", biased},
        NamedConfig{"llama, tied", tied}, NamedConfig{"qwen2", qwen2},
        NamedConfig{"one layer", one_layer},
        NamedConfig{"14 heads, 2 kv heads", odd_decoder(), 0.02},
        NamedConfig{"6 heads, 1 kv head, tied", odd_tied, 0.02},
        NamedConfig{"3 heads, 1 kv head", three_heads},
        NamedConfig{"6 heads, 3 kv heads", three_kv_heads},
        NamedConfig{"a vocabulary of 4099", large, 0.02},
        NamedConfig{"llama with mlp_bias, linear rotary scaling", mlp_biased},
        NamedConfig{"gpt2", gpt2_like(), 0.02}, NamedConfig{"qwen3", qwen3_like()}}) {
    if (check_tp_size(variant.config, tp.size()).empty()) working.push_back(variant);
  }
  REQUIRE(working.size() >= 11);  // 4 ranks: all but 3 heads and 3 kv heads
  return working;
}

TokenBatch one_sequence(const TokenBatch& batch, int64_t sample) {
  return {.ids = batch.ids.narrow(1, sample, 1).contiguous(),
          .targets = batch.targets.narrow(1, sample, 1).contiguous(),
          .step = batch.step,
          .first_sample = batch.first_sample + sample};
}

TrainingOptions with_dropout(SequenceParallel sequence_parallel) {
  return {.sequence_parallel = sequence_parallel,
          .attention_dropout = 0.2,
          .residual_dropout = 0.2,
          .seed = 11};
}

constexpr SequenceParallel kBoth[] = {SequenceParallel::off, SequenceParallel::on};

/// A step has the reference's losses and gradients, an evaluation its losses, and recomputation
/// changes no bit.
void check_step(const NamedConfig& variant, comm::Communicator& tp,
                SequenceParallel sequence_parallel, const Tensors& weights, const TokenBatch& batch,
                const ReferenceResult& expected) {
  TrainingOptions options = {.sequence_parallel = sequence_parallel, .z_loss = variant.z_loss};
  Model plain(variant.config, tp, options, weights);
  const at::Tensor losses = plain.step(batch);
  CHECK(relative_error(losses[0], expected.loss) < kLossTolerance);
  CHECK(relative_error(losses[1], expected.squared_logsumexp) < kLossTolerance);
  CHECK(at::equal(plain.evaluate(batch), losses));
  const std::vector<at::Tensor> gradients = plain.gradients();
  plain.check_gradients(expected.gradients);
  for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
    CAPTURE(recompute == Recompute::full);
    options.recompute = recompute;
    Model saving(variant.config, tp, options, weights);
    CHECK(at::equal(saving.step(batch), losses));
    CHECK(bitwise_equal(saving.gradients(), gradients));
  }
}

}  // namespace

void check_decoder_against_reference(comm::Communicator& tp) {
  for (const NamedConfig& variant : decoder_variants(tp)) {
    const Tensors weights = noisy_weights(variant.config, /*seed=*/5);
    const TokenBatch batch = make_batch("batch", variant.config);
    const ReferenceResult expected =
        reference_step(variant.config, weights, batch.ids, batch.targets, 1.0 / 12, variant.z_loss);
    for (const SequenceParallel sequence_parallel : kBoth) {
      INFO(variant.name);
      CAPTURE(sequence_parallel == SequenceParallel::on);
      check_step(variant, tp, sequence_parallel, weights, batch, expected);
    }
  }
}

namespace {

void check_sequence_lengths_of(const DecoderConfig& config, comm::Communicator& tp) {
  const Tensors weights = noisy_weights(config, /*seed=*/9);
  // On four ranks: 2 leaves two of them empty, 5 the last one (2, 2, 1, 0).
  for (const int64_t length : {2, 5, 8, 9}) {
    const TokenBatch batch = make_batch("batch", config, length);
    const ReferenceResult expected =
        reference_step(config, weights, batch.ids, batch.targets, 1.0 / 12);
    for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
      CAPTURE(length, static_cast<int>(recompute));
      Model model(config, tp, {.sequence_parallel = SequenceParallel::on, .recompute = recompute},
                  weights);
      CHECK(relative_error(model.step(batch)[0], expected.loss) < kLossTolerance);
      model.check_gradients(expected.gradients);
    }
  }
}

}  // namespace

void check_sequence_lengths(comm::Communicator& tp) {
  check_sequence_lengths_of(odd_decoder(), tp);
  check_sequence_lengths_of(gpt2_like(), tp);
}

void check_gradients_accumulate(comm::Communicator& tp) {
  DecoderConfig config = odd_decoder();
  config.tie_word_embeddings = true;  // two uses add into one table
  const Tensors weights = noisy_weights(config, /*seed=*/6);
  for (const SequenceParallel sequence_parallel : kBoth) {
    CAPTURE(sequence_parallel == SequenceParallel::on);
    Model model(config, tp, {.sequence_parallel = sequence_parallel}, weights);
    Tensors expected;
    for (const std::string name : {"first", "second"}) {
      const TokenBatch batch = make_batch(name, config);
      model.step(batch);
      const ReferenceResult reference =
          reference_step(config, weights, batch.ids, batch.targets, 1.0 / 12);
      for (const auto& [tensor, gradient] : reference.gradients) {
        expected[tensor] = expected.count(tensor) ? expected[tensor] + gradient : gradient;
      }
    }
    model.check_gradients(expected);
  }
}

void check_generation_against_reference(comm::Communicator& tp) {
  for (const NamedConfig& variant : decoder_variants(tp)) {
    INFO(variant.name);
    const DecoderConfig& config = variant.config;
    const Tensors weights = noisy_weights(config, /*seed=*/7);
    // Training's sequence parallelism and dropout have no part in generation.
    Model model(config, tp, with_dropout(SequenceParallel::on), weights);
    const at::Tensor ids = token_ids("prompt", 9, 2, config.vocab_size);
    const at::Tensor expected = reference_logits(config, weights, ids);  // [S, B, V]

    const std::vector<std::vector<int64_t>> chunkings = {
        {9}, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {5, 1, 3}, {2, 7}};
    for (const std::vector<int64_t>& chunks : chunkings) {
      const auto cache = model.decoder.make_cache(/*batch=*/2, /*max_length=*/9);
      int64_t position = 0;
      for (const int64_t chunk : chunks) {
        const at::Tensor logits =
            model.decoder.next_token_logits(ids.narrow(0, position, chunk), *cache);
        position += chunk;
        CAPTURE(position, chunk);
        CHECK(relative_error(logits, expected[position - 1]) < kTolerance);
      }
      CHECK(cache->length() == 9);
    }
  }
}

namespace {

struct Collectives {
  int64_t all_gathers = 0;
  int64_t reduce_scatters = 0;
  int64_t all_reduces = 0;

  bool operator==(const Collectives&) const = default;
  Collectives operator-(const Collectives& other) const {
    return {all_gathers - other.all_gathers, reduce_scatters - other.reduce_scatters,
            all_reduces - other.all_reduces};
  }
  static Collectives so_far(const comm::Communicator& tp) {
    const comm::CommCounters& counters = tp.counters();
    return {counters.all_gathers, counters.reduce_scatters, counters.all_reduces};
  }
};

std::ostream& operator<<(std::ostream& out, const Collectives& count) {
  return out << count.all_gathers << " all-gathers, " << count.reduce_scatters
             << " reduce-scatters, " << count.all_reduces << " all-reduces";
}

struct BothWays {
  Collectives forward;
  Collectives backward;
};

class ForwardEnd final : public NoObserver {
 public:
  ForwardEnd(const comm::Communicator& tp, int head) : tp_(tp), head_(head) {}
  void after_forward(int block) override {
    if (block == head_) at_end = Collectives::so_far(tp_);
  }
  Collectives at_end;

 private:
  const comm::Communicator& tp_;
  int head_;
};

BothWays count_collectives(comm::Communicator& tp, int64_t layers, const TrainingOptions& options) {
  DecoderConfig config = odd_decoder();
  config.num_hidden_layers = layers;
  Model model(config, tp, options, noisy_weights(config, /*seed=*/8));
  ForwardEnd observer(tp, static_cast<int>(layers) + 1);
  const Collectives begin = Collectives::so_far(tp);
  model.decoder.forward_backward(make_batch("batch", config), inverse_of(12), observer);
  return {.forward = observer.at_end - begin,
          .backward = Collectives::so_far(tp) - observer.at_end};
}

}  // namespace

void check_collectives(comm::Communicator& tp) {
  struct Case {
    SequenceParallel sequence_parallel;
    Recompute recompute;
    BothWays two_layers;
  };
  const SequenceParallel on = SequenceParallel::on;
  const SequenceParallel off = SequenceParallel::off;
  const std::vector<Case> cases = {
      {on, Recompute::none, {{4, 4, 0}, {8, 4, 0}}},
      {on, Recompute::selective, {{4, 4, 0}, {8, 4, 0}}},
      {on, Recompute::full, {{4, 4, 0}, {12, 6, 0}}},  // forward again but for its last reduction
      {off, Recompute::none, {{0, 0, 4}, {0, 0, 4}}},
      {off, Recompute::selective, {{0, 0, 4}, {0, 0, 4}}},
      {off, Recompute::full, {{0, 0, 4}, {0, 0, 6}}},
  };
  for (const Case& c : cases) {
    const bool sliced = c.sequence_parallel == on;
    CAPTURE(sliced, static_cast<int>(c.recompute));
    const TrainingOptions options = {.sequence_parallel = c.sequence_parallel,
                                     .recompute = c.recompute};
    const BothWays one = count_collectives(tp, 1, options);
    const BothWays three = count_collectives(tp, 3, options);
    CHECK(three.forward - one.forward == c.two_layers.forward);
    CHECK(three.backward - one.backward == c.two_layers.backward);
    if (c.recompute == Recompute::full) continue;
    // Beside one layer: the embedding's output and the head's input; back, where the head's loss is
    // made on the way, row maxima and sums of the cross entropy, the gradient into the head and
    // that of the embedding's output.
    CHECK(one.forward == (sliced ? Collectives{3, 3, 0} : Collectives{0, 0, 3}));
    CHECK(one.backward == (sliced ? Collectives{5, 3, 2} : Collectives{0, 0, 5}));
  }
}

void check_dropout_over_layouts(comm::Communicator& tp) {
  const auto alone = comm::single_rank_communicator("tp");
  DecoderConfig tied = odd_decoder();
  tied.tie_word_embeddings = true;
  for (const DecoderConfig& config : {small_decoder(), tied, gpt2_like(), qwen3_like()}) {
    const Tensors weights = noisy_weights(config, /*seed=*/10);
    TokenBatch batch = make_batch("batch", config);
    batch.step = 4;
    batch.first_sample = 6;
    Model one_rank(config, *alone, with_dropout(SequenceParallel::off), weights);
    const at::Tensor expected = one_rank.step(batch);
    for (const SequenceParallel sequence_parallel : kBoth) {
      CAPTURE(config.num_attention_heads, sequence_parallel == SequenceParallel::on);
      TrainingOptions options = with_dropout(sequence_parallel);
      Model cut(config, tp, options, weights);
      const at::Tensor losses = cut.step(batch);
      CHECK(relative_error(losses, expected) < kLossTolerance);
      const std::vector<at::Tensor> gradients = cut.gradients();
      cut.check_gradients(global_gradients(one_rank.decoder.parameters()));
      for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
        options.recompute = recompute;
        Model saving(config, tp, options, weights);
        CHECK(at::equal(saving.step(batch), losses));
        CHECK(bitwise_equal(saving.gradients(), gradients));
      }
    }
  }
}

void check_dropout_numbers(comm::Communicator& tp) {
  const DecoderConfig config = odd_decoder();
  const Tensors weights = noisy_weights(config, /*seed=*/12);
  const TokenBatch batch = make_batch("batch", config);
  const TrainingOptions options = with_dropout(SequenceParallel::on);
  Model model(config, tp, options, weights);
  const at::Tensor losses = model.step(batch);
  const std::vector<at::Tensor> gradients = model.gradients();

  model.zero_gradients();
  CHECK(at::equal(model.step(batch), losses));
  CHECK(bitwise_equal(model.gradients(), gradients));

  model.zero_gradients();
  const at::Tensor in_two = model.step(one_sequence(batch, 0)) + model.step(one_sequence(batch, 1));
  CHECK(relative_error(in_two, losses) < kLossTolerance);
  const std::vector<at::Tensor> of_two = model.gradients();
  for (size_t i = 0; i < gradients.size(); ++i)
    CHECK(relative_error(of_two[i], gradients[i]) < kTolerance);

  TokenBatch next_step = batch;
  next_step.step = 1;
  CHECK_FALSE(at::equal(model.step(next_step), losses));
  TokenBatch next_sample = batch;
  next_sample.first_sample = 1;
  CHECK_FALSE(at::equal(model.step(next_sample), losses));
  TrainingOptions other = options;
  other.seed = options.seed + 1;
  CHECK_FALSE(at::equal(Model(config, tp, other, weights).step(batch), losses));
  for (const bool attention : {true, false}) {  // each of the two has a part in it
    other = options;
    (attention ? other.attention_dropout : other.residual_dropout) = 0;
    CHECK_FALSE(at::equal(Model(config, tp, other, weights).step(batch), losses));
  }

  Model plain(config, tp, {.sequence_parallel = SequenceParallel::on}, weights);
  CHECK(at::equal(model.evaluate(batch), plain.evaluate(batch)));
}

namespace {

void check_dropout_gradient_of(const DecoderConfig& config) {
  const auto tp = comm::single_rank_communicator("tp");
  const Tensors weights = noisy_weights(config, /*seed=*/13);
  const TokenBatch batch = make_batch("batch", config);
  Model model(config, *tp, with_dropout(SequenceParallel::off), weights);
  model.step(batch);
  const std::vector<at::Tensor> gradients = model.gradients();
  size_t i = 0;
  for (Parameter* parameter : model.decoder.parameters()) {
    const at::Tensor& gradient = gradients[i++];
    const double slope = gradient.norm().item<double>();
    // Wide enough that fp32 rounding of the loss (1e-7 of about 4) is 1e-3 of the difference.
    const double width = 1e-3 / slope;
    const at::Tensor centre = parameter->data.clone();
    const at::Tensor direction = gradient / slope;
    parameter->data.copy_(centre + direction * width);
    const double above = model.step(batch)[0].item<double>();
    parameter->data.copy_(centre - direction * width);
    const double below = model.step(batch)[0].item<double>();
    parameter->data.copy_(centre);
    CAPTURE(parameter->name, slope);
    CHECK((above - below) / (2 * width) / slope == Approx(1.0).margin(0.02));
  }
}

}  // namespace

void check_dropout_gradient() {
  DecoderConfig config = small_decoder();
  config.num_hidden_layers = 2;
  config.qkv_bias = true;
  config.o_bias = true;
  check_dropout_gradient_of(config);
  check_dropout_gradient_of(gpt2_like());
  check_dropout_gradient_of(qwen3_like());
}

namespace {

// On four ranks 27 tokens are 7, 7, 7 and 6: no border of a slice is one of a document.
const std::vector<int64_t> kDocumentLengths = {5, 1, 9, 3, 2, 7};

struct Documents {
  std::vector<TokenBatch> alone;  // [its length, 1] each
  TokenBatch packed;              // [27, 1]
};

Documents make_documents(const DecoderConfig& config) {
  Documents made;
  std::vector<at::Tensor> ids, targets, positions;
  std::vector<int32_t> ends = {0};
  for (const int64_t length : kDocumentLengths) {
    const std::string name = "document " + std::to_string(ends.size());
    TokenBatch batch{.ids = token_ids(name + "/ids", length, 1, config.vocab_size),
                     .targets = token_ids(name + "/targets", length, 1, config.vocab_size)};
    batch.targets[length - 1][0] = -100;
    if (length > 4) batch.targets[2][0] = -100;
    ids.push_back(batch.ids);
    targets.push_back(batch.targets);
    positions.push_back(at::arange(length, at::kLong));
    ends.push_back(ends.back() + static_cast<int32_t>(length));
    made.alone.push_back(std::move(batch));
  }
  ends.insert(ends.end(), 3, ends.back());  // empty documents
  made.packed = {.ids = at::cat(ids),
                 .targets = at::cat(targets),
                 .documents = model::PackedDocuments{
                     .attention = {.ends = at::tensor(ends, at::kInt), .longest = 9},
                     .positions = at::cat(positions)}};
  return made;
}

ReferenceResult reference_of_each(const NamedConfig& variant, const Tensors& weights,
                                  const std::vector<TokenBatch>& batches) {
  ReferenceResult sum;
  for (const TokenBatch& batch : batches) {
    const ReferenceResult one =
        reference_step(variant.config, weights, batch.ids, batch.targets, 1.0 / 12, variant.z_loss);
    const bool first = !sum.loss.defined();
    sum.loss = first ? one.loss : sum.loss + one.loss;
    sum.squared_logsumexp =
        first ? one.squared_logsumexp : sum.squared_logsumexp + one.squared_logsumexp;
    for (const auto& [name, gradient] : one.gradients)
      sum.gradients[name] = first ? gradient : sum.gradients[name] + gradient;
  }
  return sum;
}

// What differs by more than this, ten times the tolerance, is another computation.
constexpr double kOtherLoss = 10 * kLossTolerance;

void check_faulty_documents(const DecoderConfig& config, const Tensors& weights,
                            const Documents& documents, const at::Tensor& loss,
                            comm::Communicator& tp) {
  Model model(config, tp, {}, weights);
  const auto differs = [&](const TokenBatch& batch) {
    return relative_error(model.evaluate(batch)[0], loss) > kOtherLoss;
  };
  REQUIRE_FALSE(differs(documents.packed));
  TokenBatch faulty = documents.packed;
  at::Tensor& ends = faulty.documents->attention.ends;
  ends = ends.clone();
  ends[4] = 20;  // the documents of 3 and 2 tokens as one
  CHECK(differs(faulty));
  if (config.positions == model::Positions::learned) {
    faulty = documents.packed;
    faulty.documents->positions = at::arange(27, at::kLong).remainder_(9);
    CHECK(differs(faulty));
    return;  // 27 positions in a row it does not have
  }
  faulty = documents.packed;
  faulty.documents.reset();
  CHECK(differs(faulty));
}

}  // namespace

void check_documents_against_reference(comm::Communicator& tp) {
  for (const NamedConfig& variant :
       {NamedConfig{"14 heads, 2 kv heads", odd_decoder(), 0.02},
        NamedConfig{"qwen3", qwen3_like()}, NamedConfig{"gpt2", gpt2_like(), 0.02}}) {
    INFO(variant.name);
    const Tensors weights = noisy_weights(variant.config, /*seed=*/15);
    const Documents documents = make_documents(variant.config);
    const ReferenceResult expected = reference_of_each(variant, weights, documents.alone);
    for (const SequenceParallel sequence_parallel : kBoth) {
      CAPTURE(sequence_parallel == SequenceParallel::on);
      check_step(variant, tp, sequence_parallel, weights, documents.packed, expected);
    }
    check_faulty_documents(variant.config, weights, documents, expected.loss, tp);
  }
}

void check_document_errors(comm::Communicator& tp) {
  const DecoderConfig config = gpt2_like();
  const Tensors weights = noisy_weights(config, /*seed=*/16);
  const TokenBatch packed = make_documents(config).packed;
  CHECK_THROWS_AS(Model(config, tp, with_dropout(SequenceParallel::off), weights).step(packed),
                  InternalError);
  Model model(config, tp, {}, weights);
  TokenBatch wrong = packed;
  wrong.documents->positions = packed.documents->positions.narrow(0, 0, 26);
  CHECK_THROWS_AS(model.step(wrong), InternalError);
  wrong = packed;
  wrong.documents->attention.longest = 10;  // of 9 learned positions
  CHECK_THROWS_AS(model.step(wrong), InternalError);
}

void check_evaluation(comm::Communicator& tp) {
  const DecoderConfig config = odd_decoder();
  const Tensors weights = noisy_weights(config, /*seed=*/14);
  const TokenBatch batch = make_batch("batch", config);
  for (const SequenceParallel sequence_parallel : kBoth) {
    CAPTURE(sequence_parallel == SequenceParallel::on);
    Model model(config, tp, {.sequence_parallel = sequence_parallel, .z_loss = 0.1}, weights);
    const std::vector<at::Tensor> before = model.gradients();
    const at::Tensor evaluated = model.evaluate(batch);
    CHECK(bitwise_equal(model.gradients(), before));
    CHECK(at::equal(evaluated, model.step(batch)));
  }
}

}  // namespace tptrain::testing
