// The forecast of activations against the peak that a real forward and backward reach: shapes in
// which layers, logits or attention dominate, every recompute, both dtypes, cut and whole
// sequences, dropout.
#include "planner/activations.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <map>
#include <optional>

#include "kernels/cpu/counting_allocator.h"
#include "model/adapter.h"
#include "model/decoder_layer.h"
#include "model/positions.h"
#include "parameters/parameter_store.h"
#include "silent_axis.h"
#include "support/catch.h"
#include "zero/param_buckets.h"

namespace tptrain::planner {
namespace {

using kernels::cpu::CountingAllocator;
using model::Recompute;
using tensor_parallel::SequenceParallel;

struct SilentObserver final : tensor_parallel::BlockObserver {
  void before_forward(int) override {}
  void after_forward(int) override {}
  void before_backward(int) override {}
  void after_backward(int) override {}
};

struct Shape {
  const char* name;
  model::DecoderConfig config;
  int64_t seq_length;
  int64_t micro_batch_size;
};

std::vector<Shape> shapes() {
  const model::DecoderConfig odd = {.model_type = "qwen2",
                                    .vocab_size = 259,
                                    .hidden_size = 60,
                                    .intermediate_size = 134,
                                    .num_hidden_layers = 4,
                                    .num_attention_heads = 6,
                                    .num_key_value_heads = 2,
                                    .head_dim = 12,
                                    .tie_word_embeddings = true,
                                    .qkv_bias = true};
  model::DecoderConfig wide_vocab = odd;
  wide_vocab.vocab_size = 8001;
  wide_vocab.num_hidden_layers = 1;
  wide_vocab.tie_word_embeddings = false;
  model::DecoderConfig wide_ffn = odd;
  wide_ffn.intermediate_size = 900;
  wide_ffn.o_bias = true;
  model::DecoderConfig gpt2 = odd;
  gpt2.model_type = "gpt2";
  gpt2.num_key_value_heads = 6;
  gpt2.norm = model::Norm::layer;
  gpt2.feed_forward = model::FeedForward::gelu;
  gpt2.positions = model::Positions::learned;
  gpt2.max_position_embeddings = 101;
  gpt2.o_bias = true;
  gpt2.mlp_bias = true;
  model::DecoderConfig qwen3 = odd;
  qwen3.model_type = "qwen3";
  qwen3.head_dim = 24;
  qwen3.qkv_bias = false;
  qwen3.qk_norm = true;
  return {{"layers", odd, 101, 3},           {"gpt2", gpt2, 101, 3},
          {"qwen3", qwen3, 101, 3},          {"logits", wide_vocab, 64, 2},
          {"feed-forward", wide_ffn, 50, 2}, {"attention", odd, 513, 1}};
}

int64_t measured_peak(const model::DecoderConfig& config, const ActivationOptions& options) {
  CountingAllocator& allocator = CountingAllocator::install();
  testing::SilentAxis tp(options.tp_rank, options.tp_size);
  model::Decoder decoder(config, tp, options.training);
  zero::ParamBuckets buckets(
      decoder.blocks(), {.rank = 0, .size = 1},
      {.device = at::kCPU, .dtype = options.bf16 ? at::kBFloat16 : at::kFloat, .zero_stage = 0});
  for (zero::Bucket& bucket : buckets.buckets()) bucket.data.fill_(0.01);
  SilentObserver observer;
  const int64_t before = allocator.live_bytes();
  allocator.restart_peak();
  {
    const int64_t tokens = options.seq_length * options.micro_batch_size;
    model::TokenBatch batch;
    batch.ids = at::randint(config.vocab_size,
                            {options.document_mask ? tokens : options.seq_length,
                             options.document_mask ? 1 : options.micro_batch_size},
                            at::kLong);
    batch.targets = batch.ids.clone();
    if (options.document_mask) {  // documents as long as there can be
      batch.documents = model::PackedDocuments{
          .attention = {.ends = at::arange(0, tokens + 1, options.seq_length, at::kInt),
                        .longest = options.seq_length},
          .positions = at::arange(tokens, at::kLong).remainder_(options.seq_length)};
    }
    decoder.forward_backward(batch, at::scalar_tensor(1.0 / static_cast<double>(tokens)), observer);
  }
  return allocator.peak_bytes() - before;
}

void check(const Shape& shape, ActivationOptions options) {
  options.seq_length = shape.seq_length;
  options.micro_batch_size = shape.micro_batch_size;
  INFO(shape.name << ", tp rank " << options.tp_rank << " of " << options.tp_size
                  << ", sequence cut "
                  << (options.training.sequence_parallel == SequenceParallel::on) << ", recompute "
                  << static_cast<int>(options.training.recompute) << ", bf16 " << options.bf16
                  << ", dropout " << options.training.attention_dropout << ", document mask "
                  << options.document_mask);
  const int64_t measured = measured_peak(shape.config, options);
  const int64_t planned = peak_activation_bytes(shape.config, options);
  // Besides: scalars, and sums of the width of a bias.
  CHECK(static_cast<double>(planned) ==
        testing::Approx(static_cast<double>(measured)).epsilon(0.01));
}

/// What a layer's forward leaves, tensor by tensor and by their memory, is what it declares.
void check_layer(const Shape& shape, const ActivationOptions& options) {
  const model::TrainingOptions& training = options.training;
  const at::ScalarType dtype = options.bf16 ? at::kBFloat16 : at::kFloat;
  testing::SilentAxis tp(options.tp_rank, options.tp_size);
  std::optional<model::Adapters> adapters;
  if (training.adapter) adapters.emplace(shape.config, *training.adapter);
  const model::Adapters* of_linears = adapters ? &*adapters : nullptr;
  const tensor_parallel::Fp8Settings fp8 = {.keep_weights = false};
  model::DecoderLayer layer(
      shape.config,
      {.name = "model.layers.0", .fp8 = training.fp8.on ? &fp8 : nullptr, .adapters = of_linears},
      tp);
  const std::vector<parameters::ParameterBlock> blocks = {
      {.name = "layer 0", .parameters = layer.parameters()}};
  const parameters::ParameterStore store(parameters::whole_layout(blocks), {.dtype = dtype});
  for (const parameters::Parameter* parameter : layer.parameters()) parameter->data.fill_(0.01);
  const tensor_parallel::SequenceRegion region(tp, shape.seq_length, training.sequence_parallel);
  const bool rotates = shape.config.positions != model::Positions::learned;
  const kernels::RotaryTable rotary =
      rotates ? kernels::rotary_table(0, shape.seq_length, model::rotary_frequencies(shape.config),
                                      at::kCPU)
              : kernels::RotaryTable{};
  const model::DropoutNumbers dropout({.attention = training.attention_dropout});
  const auto rows = [&] {
    return at::ones({region.rows(), shape.micro_batch_size, shape.config.hidden_size}, dtype);
  };
  model::DecoderLayer::Kept kept;
  layer.forward(
      {.residual = rows(), .delta = rows()},
      {.region = region, .rotary = rotary, .dropout = dropout, .recompute = training.recompute},
      &kept);

  const model::LayerMemory memory = {.recompute = training.recompute,
                                     .fp8 = training.fp8.on,
                                     .attention_dropout = training.attention_dropout > 0};
  const model::LayerSizes sizes(shape.config, of_linears, options.tp_rank, options.tp_size,
                                shape.seq_length, shape.micro_batch_size, region.sliced());
  const auto stays = [&](model::LayerTensor tensor) {
    return model::stays(tensor, memory, region.sliced());
  };
  CHECK(kept.input.residual.defined() == stays(model::LayerTensor::input));
  std::map<model::LayerTensor, const at::Tensor*> left;
  for (const auto& made : kept.tensors()) left[made.what] = made.tensor;
  const std::vector<model::LayerTensorSize> declared = model::layer_tensors(sizes);
  CHECK(declared.size() == left.size());
  using Type = model::LayerTensorSize::Type;
  for (const model::LayerTensorSize& size : declared) {
    INFO(shape.name << ", tp rank " << options.tp_rank << " of " << options.tp_size
                    << ", sequence cut " << region.sliced() << ", recompute "
                    << static_cast<int>(training.recompute) << ", bf16 " << options.bf16 << ", FP8 "
                    << training.fp8.on << ", tensor " << static_cast<int>(size.tensor));
    const at::Tensor& tensor = *left.at(size.tensor);
    const int64_t bytes = size.type == Type::compute ? (options.bf16 ? 2 : 4)
                          : size.type == Type::fp32  ? 4
                                                     : 1;
    const auto measured = tensor.defined() ? static_cast<int64_t>(tensor.storage().nbytes()) : 0;
    CHECK(measured == (stays(size.tensor) ? size.elements * bytes : 0));
  }
}

TEST_CASE("what a layer keeps for its backward is what it declares", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    for (const bool bf16 : {false, true}) {
      for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
        for (const SequenceParallel sequence : {SequenceParallel::off, SequenceParallel::on}) {
          for (const int tp_rank : {0, 3}) {
            ActivationOptions options{
                .tp_rank = tp_rank,
                .tp_size = 4,
                .bf16 = bf16,
                .training = {.sequence_parallel = sequence, .recompute = recompute}};
            check_layer(shape, options);
            options.training.adapter = config::AdapterConfig{.rank = 24};
            check_layer(shape, options);
          }
        }
        check_layer(shape,
                    {.bf16 = bf16, .training = {.recompute = recompute, .attention_dropout = 0.1}});
      }
    }
  }
}

TEST_CASE("planned activations are the peak of a real step", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    for (const bool bf16 : {false, true}) {
      for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
        check(shape, {.bf16 = bf16, .training = {.recompute = recompute}});
        for (const SequenceParallel sequence : {SequenceParallel::off, SequenceParallel::on}) {
          for (const int tp_rank : {0, 3}) {
            check(shape, {.tp_rank = tp_rank,
                          .tp_size = 4,
                          .bf16 = bf16,
                          .training = {.sequence_parallel = sequence, .recompute = recompute}});
          }
        }
      }
    }
  }
}

TEST_CASE("what FP8 casts and keeps is in the plan", "[planner]") {
  at::set_num_threads(1);
  model::DecoderConfig config = shapes()[0].config;
  config.hidden_size = 64;
  config.intermediate_size = 192;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 16;
  const Shape even = {"FP8", config, 144, 3};
  for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
    // Casts of weights stay, and the plan counts them beside the activations.
    model::TrainingOptions training = {.recompute = recompute};
    training.fp8 = {.on = true, .keep_weights = false};
    check(even, {.bf16 = true, .training = training});
    check_layer(even, {.bf16 = true, .training = training});
    training.sequence_parallel = SequenceParallel::on;
    check(even, {.tp_size = 4, .bf16 = true, .training = training});
    check_layer(even, {.tp_size = 4, .bf16 = true, .training = training});
    training.fp8.all_gather = true;
    check(even, {.tp_size = 4, .bf16 = true, .training = training});
  }
}

TEST_CASE("the plan knows of a head by chunks of tokens", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    for (const bool bf16 : {false, true})
      check(shape, {.bf16 = bf16, .training = {.head_chunk_tokens = 40}});
  }
}

TEST_CASE("what a document mask needs is in the plan", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    for (const bool bf16 : {false, true}) {
      for (const Recompute recompute : {Recompute::none, Recompute::full}) {
        check(shape, {.document_mask = true, .bf16 = bf16, .training = {.recompute = recompute}});
        check(shape,
              {.tp_rank = 3,
               .tp_size = 4,
               .document_mask = true,
               .bf16 = bf16,
               .training = {.sequence_parallel = SequenceParallel::on, .recompute = recompute}});
      }
    }
  }
}

TEST_CASE("below the first block that trains nothing is kept", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    if (shape.config.num_hidden_layers < 4) continue;
    const auto planned = [&](const std::vector<std::string>& freeze) {
      ActivationOptions options{.training = {.freeze = freeze}};
      testing::SilentAxis tp(0, 1);
      options.first_training_block =
          model::Decoder(shape.config, tp, options.training).first_training_block();
      check(shape, options);
      options.seq_length = shape.seq_length;
      options.micro_batch_size = shape.micro_batch_size;
      return peak_activation_bytes(shape.config, options);
    };
    const int64_t all = planned({});
    const int64_t lower = planned({"model.embed_*", "model.layers.0.*", "model.layers.1.*"});
    const int64_t norm_alone = planned({"model.embed_*", "model.layers.*"});
    CHECK(lower < all);
    CHECK(norm_alone < lower);
  }
}

TEST_CASE("what adapters keep and make is in the plan", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    for (const bool bf16 : {false, true}) {
      for (const Recompute recompute : {Recompute::none, Recompute::selective, Recompute::full}) {
        for (const double dropout : {0.0, 0.1}) {
          const config::AdapterConfig adapter = {.rank = 24, .dropout = dropout};
          ActivationOptions options{.bf16 = bf16,
                                    .training = {.recompute = recompute, .adapter = adapter}};
          options.first_training_block = 1;
          check(shape, options);
          options.tp_rank = 1;
          options.tp_size = 2;
          options.training.sequence_parallel = SequenceParallel::on;
          check(shape, options);
        }
      }
    }
  }
}

TEST_CASE("dropout's copies and probabilities are in the plan", "[planner]") {
  at::set_num_threads(1);
  for (const Shape& shape : shapes()) {
    for (const bool bf16 : {false, true}) {
      check(shape, {.bf16 = bf16, .training = {.attention_dropout = 0.1, .residual_dropout = 0.1}});
      check(shape, {.tp_rank = 1,
                    .tp_size = 2,
                    .bf16 = bf16,
                    .training = {.sequence_parallel = SequenceParallel::on,
                                 .recompute = Recompute::selective,
                                 .residual_dropout = 0.1}});
    }
  }
}

}  // namespace
}  // namespace tptrain::planner
