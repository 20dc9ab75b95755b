#include "model/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "kernels/kernels.h"
#include "model/adapter.h"
#include "model/decoder_layer.h"
#include "model/freeze.h"
#include "model/head_share.h"
#include "model/loss_head.h"
#include "model/positions.h"
#include "tensor_parallel/partition.h"
#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::model {

namespace {

using parameters::Parameter;
using parameters::ParameterBlock;
using tensor_parallel::BlockObserver;
using tensor_parallel::SequenceParallel;
using tensor_parallel::SequenceRegion;

tensor_parallel::VocabTableOptions table_options(const DecoderConfig& config, std::string name) {
  return {.name = std::move(name),
          .vocab_size = config.vocab_size,
          .hidden_size = config.hidden_size,
          .init_std = config.initializer_range};
}

// Of a parameter that works on slices of the sequence, each rank on its own.
parameters::TpGradient replicated_gradient(const TrainingOptions& options) {
  return options.sequence_parallel == SequenceParallel::on ? parameters::TpGradient::partial
                                                           : parameters::TpGradient::whole;
}

}  // namespace

struct Decoder::Impl {
  Impl(const DecoderConfig& decoder_config, comm::Communicator& tp_axis,
       const TrainingOptions& training_options)
      : config(decoder_config),
        options(training_options),
        tp(tp_axis),
        fp8({.keep_weights = options.fp8.keep_weights,
             .observer = options.fp8.observer,
             .tp = options.fp8.all_gather ? &tp_axis : nullptr}),
        adapters(options.adapter ? Adapters(config, *options.adapter) : Adapters()),
        embedding(
            tensor_parallel::vocab_parallel_table(table_options(config, "model.embed_tokens"), tp)),
        final_norm(config, {.name = "model.norm", .gradient = replicated_gradient(options)}, tp) {
    // The tensors' names in Hugging Face's llama and its descendants; families/ maps the others'.
    blocks.push_back(
        {.name = "embedding", .parameters = {embedding.get()}, .backward_reads_data = false});
    if (config.positions == Positions::learned) {
      positions = std::make_unique<LearnedPositions>(
          config,
          LearnedPositions::Options{.name = "model.embed_positions",
                                    .gradient = replicated_gradient(options)},
          tp);
      blocks.back().parameters.push_back(&positions->table());
    }
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layers.push_back(std::make_unique<DecoderLayer>(
          config,
          DecoderLayer::Options{
              .index = i,
              .name = cat("model.layers.", i),
              .replicated_gradient = replicated_gradient(options),
              .fp8 = options.fp8.takes(i, config.num_hidden_layers) ? &fp8 : nullptr,
              .adapters = &adapters},
          tp));
      blocks.push_back({.name = cat("layer ", i), .parameters = layers.back()->parameters()});
    }
    blocks.push_back({.name = "head", .parameters = final_norm.parameters()});
    if (config.tie_word_embeddings) {
      blocks.back().also_uses = 0;
    } else {
      untied_head = tensor_parallel::vocab_parallel_table(table_options(config, "lm_head"), tp);
      blocks.back().parameters.push_back(untied_head.get());
    }
    freeze(blocks, options.freeze);
    adapters.train_alone(blocks);
    packed = take_packed(blocks, options.adapter);
    first_training = model::first_training_block(blocks);
  }

  Parameter& head() { return untied_head ? *untied_head : *embedding; }
  int head_block() const { return static_cast<int>(blocks.size()) - 1; }

  /// Of the positions first .. first + length - 1; nothing where positions are learned.
  kernels::RotaryTable rotary_table(int64_t first, int64_t length, at::Device device) const {
    if (positions) return {};
    return kernels::rotary_table(first, length, rotary_frequencies(config), device);
  }
  const kernels::RotaryTable& training_rotary(int64_t length, at::Device device) {
    const at::Tensor& last = last_rotary.cos;
    const bool fits = last.defined() && last.size(0) == length && last.device() == device;
    if (!fits) last_rotary = rotary_table(0, length, device);
    return last_rotary;
  }

  /// A row for each row of ids; of documents, the angles of its position in its document.
  kernels::RotaryTable rotary_of(const TokenBatch& batch) {
    if (!batch.documents) return training_rotary(batch.ids.size(0), batch.ids.device());
    const kernels::RotaryTable table =
        training_rotary(batch.documents->attention.longest, batch.ids.device());
    if (positions) return table;
    const at::Tensor& rows = batch.documents->positions;
    return {.cos = table.cos.index_select(0, rows), .sin = table.sin.index_select(0, rows)};
  }

  /// Checks what the batch says of its documents; null where it says nothing.
  const PackedDocuments* documents_of(const TokenBatch& batch) const {
    if (!batch.documents) return nullptr;
    const PackedDocuments& documents = *batch.documents;
    if (batch.ids.size(1) != 1 || documents.positions.size(0) != batch.ids.size(0)) {
      throw InternalError(
          problem(cat("documents in ids of ", batch.ids.size(0), " positions x ", batch.ids.size(1),
                      " sequences, with ", documents.positions.size(0), " positions"))
              .must("lie end to end in one sequence"));
    }
    if (positions && documents.attention.longest > positions->table().shape[0]) {
      throw InternalError(problem(cat("documents of up to ", documents.attention.longest,
                                      " tokens for ", positions->table().shape[0], " positions"))
                              .must("fit the table of positions")
                              .remedy("check_seq_length tells so before a model is built."));
    }
    return &documents;
  }
  void refuse_dropout() const {
    if (options.attention_dropout == 0 && options.residual_dropout == 0 && adapters.dropout() == 0)
      return;
    throw InternalError(problem("dropout of documents packed into one sequence")
                            .must("be 0: its numbers go by sequence and position")
                            .remedy("The check of data.document_mask tells a user so."));
  }

  /// The embedding's output as the first layer's input.
  ResidualStream embed(const at::Tensor& ids, const LayerContext& context,
                       BlockObserver& observer) {
    at::Tensor rows = context.region.reduce(
        observer.look_up(*embedding, ids).view({ids.size(0), ids.size(1), config.hidden_size}));
    const int64_t first = context.region.first_position();
    if (positions) {
      const int64_t held = held_rows(context.region);
      if (context.documents != nullptr)
        positions->add_at(rows, first, held, context.documents->positions);
      else
        positions->add(rows, first, held);
    }
    kernels::dropout_(rows, context.dropout.residual(-1, "embedding"), first);
    return {.residual = std::move(rows), .delta = {}};
  }
  void embed_backward(at::Tensor grad, const at::Tensor& ids, const LayerContext& context,
                      BlockObserver& observer) {
    const int64_t first = context.region.first_position();
    kernels::dropout_(grad, context.dropout.residual(-1, "embedding"), first);
    if (positions) {
      const int64_t held = held_rows(context.region);
      if (context.documents != nullptr)
        positions->backward_at(grad, first, held, context.documents->positions);
      else
        positions->backward(grad, first, held);
    }
    at::Tensor rows = tensor_parallel::vocab_parallel_embedding_backward(grad, context.region);
    observer.add_table_rows(*embedding, std::move(rows), ids);
  }

  /// What the head reads, and what the backward of the final norm needs.
  struct HeadInput {
    at::Tensor sum;         // [rows, B, H]
    at::Tensor statistics;  // [rows * B] or twice that
    at::Tensor input;       // [T, H] whole
  };
  HeadInput head_input(ResidualStream stream, const SequenceRegion& region) {
    NormLayer::Result norm = final_norm.forward(stream);
    stream = {};
    return {.sum = std::move(norm.sum),
            .statistics = std::move(norm.statistics),
            .input = region.gather(std::move(norm.output)).reshape({-1, config.hidden_size})};
  }
  /// The losses' sums, and the gradient of the last layer's outgoing stream.
  std::pair<at::Tensor, ResidualGradient> head_backward(HeadInput kept, LossHead head,
                                                        const at::Tensor& scale,
                                                        const at::Tensor& targets,
                                                        const SequenceRegion& region) {
    LossHead::Result result =
        head.loss_and_gradient(kept.input, targets.reshape({-1}), scale, options.z_loss);
    kept.input.reset();
    const at::Tensor grad =
        region.reduce(std::exchange(result.grad, {})
                          .view({targets.size(0), targets.size(1), config.hidden_size}));
    return {std::move(result.sums), final_norm.backward(grad, {}, kept.sum, kept.statistics)};
  }

  DecoderConfig config;
  TrainingOptions options;
  comm::Communicator& tp;
  tensor_parallel::Fp8Settings fp8;
  Adapters adapters;
  std::unique_ptr<Parameter> embedding;         // [V/tp, H]
  std::unique_ptr<LearnedPositions> positions;  // null: rotary
  std::vector<std::unique_ptr<DecoderLayer>> layers;
  NormLayer final_norm;
  std::unique_ptr<Parameter> untied_head;  // [V/tp, H]; null: it is the embedding's table
  std::vector<ParameterBlock> blocks;
  std::vector<Parameter*> packed;
  int first_training = 0;            // block
  kernels::RotaryTable last_rotary;  // of the last sequence length, which rarely changes
};

Decoder::Decoder(const DecoderConfig& config, comm::Communicator& tp,
                 const TrainingOptions& options)
    : impl_(std::make_unique<Impl>(config, tp, options)) {}

Decoder::~Decoder() = default;

const DecoderConfig& Decoder::config() const { return impl_->config; }
const std::vector<ParameterBlock>& Decoder::blocks() const { return impl_->blocks; }
int Decoder::first_training_block() const { return impl_->first_training; }

std::vector<Parameter*> Decoder::parameters() const {
  std::vector<Parameter*> all;
  for (const ParameterBlock& block : impl_->blocks) {
    all.insert(all.end(), block.parameters.begin(), block.parameters.end());
  }
  return all;
}

const std::vector<Parameter*>& Decoder::packed_parameters() const { return impl_->packed; }

void Decoder::weights_changed() { ++impl_->fp8.weights_version; }

std::vector<std::string> Decoder::linears_left_in_bf16() const {
  std::vector<std::string> names;
  const auto layers = static_cast<int64_t>(impl_->layers.size());
  for (int64_t i = 0; i < layers; ++i) {
    if (impl_->options.fp8.takes(i, layers)) impl_->layers[i]->add_linears_in_bf16(names);
  }
  return names;
}

int64_t Decoder::fp8_weight_bytes() const {
  int64_t elements = 0;
  for (const auto& layer : impl_->layers) {
    for (const Parameter* parameter : layer->parameters()) {
      if (parameter->wants_amax) elements += parameter->numel();
    }
  }
  return 2 * elements;  // rows and columns
}

at::Tensor Decoder::forward_backward(const TokenBatch& batch,
                                     const at::Tensor& inverse_target_tokens,
                                     BlockObserver& observer) {
  Impl& model = *impl_;
  const SequenceRegion region(model.tp, batch.ids.size(0), model.options.sequence_parallel);
  const DropoutNumbers dropout({.attention = model.options.attention_dropout,
                                .residual = model.options.residual_dropout,
                                .adapter = model.adapters.dropout(),
                                .seed = model.options.seed,
                                .step = batch.step,
                                .first_sample = batch.first_sample});
  const PackedDocuments* documents = model.documents_of(batch);
  if (documents != nullptr) model.refuse_dropout();
  const kernels::RotaryTable rotary = model.rotary_of(batch);
  const LayerContext context{.region = region,
                             .rotary = rotary,
                             .dropout = dropout,
                             .recompute = model.options.recompute,
                             .documents = documents};
  const int head = model.head_block();

  LossHead loss_head(model.head(), model.tp, batch.ids.numel(), model.options.head_chunk_tokens);
  observer.before_forward(0);
  ResidualStream stream = model.embed(batch.ids, context, observer);
  observer.after_forward(0);
  std::vector<DecoderLayer::Kept> kept(model.layers.size());
  for (int block = 1; block < head; ++block) {
    observer.before_forward(block);
    stream = model.layers[block - 1]->forward(
        std::move(stream), context, block < model.first_training ? nullptr : &kept[block - 1]);
    observer.after_forward(block);
  }
  observer.before_forward(head);
  Impl::HeadInput head_input = model.head_input(std::exchange(stream, {}), region);
  observer.after_forward(head);

  observer.before_backward(head);
  auto [sums, grad] = model.head_backward(std::move(head_input), std::move(loss_head),
                                          inverse_target_tokens, batch.targets, region);
  const at::Tensor losses = sums.mul_(inverse_target_tokens);
  observer.after_backward(head);
  for (int block = head - 1; block >= std::max(model.first_training, 1); --block) {
    observer.before_backward(block);
    grad = model.layers[block - 1]->backward(
        std::move(grad), std::move(kept[block - 1]), context,
        block == model.first_training ? DecoderLayer::Below::frozen : DecoderLayer::Below::trains);
    observer.after_backward(block);
  }
  if (model.first_training > 0) return losses;
  observer.before_backward(0);
  model.embed_backward(std::move(grad.rows), batch.ids, context, observer);
  observer.after_backward(0);
  return losses;
}

at::Tensor Decoder::evaluate(const TokenBatch& batch, const at::Tensor& inverse_target_tokens,
                             BlockObserver& observer) {
  Impl& model = *impl_;
  const SequenceRegion region(model.tp, batch.ids.size(0), model.options.sequence_parallel);
  const DropoutNumbers no_dropout({});
  const PackedDocuments* documents = model.documents_of(batch);
  const kernels::RotaryTable rotary = model.rotary_of(batch);
  const LayerContext context{
      .region = region, .rotary = rotary, .dropout = no_dropout, .documents = documents};
  LossHead loss_head(model.head(), model.tp, batch.ids.numel(), model.options.head_chunk_tokens);
  observer.before_forward(0);
  ResidualStream stream = model.embed(batch.ids, context, observer);
  observer.after_forward(0);
  int block = 1;
  for (const std::unique_ptr<DecoderLayer>& layer : model.layers) {
    observer.before_forward(block);
    stream = layer->forward(std::move(stream), context, nullptr);
    observer.after_forward(block);
    ++block;
  }
  observer.before_forward(block);
  const Impl::HeadInput head = model.head_input(std::exchange(stream, {}), region);
  const at::Tensor losses =
      loss_head.loss(head.input, batch.targets.reshape({-1})).mul_(inverse_target_tokens);
  observer.after_forward(block);
  return losses;
}

at::Tensor Decoder::next_token_logits(const at::Tensor& ids, KvCache& cache) {
  Impl& model = *impl_;
  const int64_t positions = ids.size(0);
  if (ids.size(1) != cache.batch() || cache.length() + positions > cache.max_length()) {
    throw InternalError(
        problem(cat("ids of ", positions, " positions x ", ids.size(1), " sequences behind ",
                    cache.length(), " cached positions, for a cache of ", cache.max_length(),
                    " positions x ", cache.batch(), " sequences"))
            .must("fit into the cache")
            .remedy("Make the cache as long as prompt and continuation together."));
  }
  const kernels::RotaryTable rotary = model.rotary_table(cache.length(), positions, ids.device());
  // One position at a time cannot be cut: all rows on every rank.
  const SequenceRegion region(model.tp, positions, SequenceParallel::off);

  ResidualStream stream;
  stream.residual = tensor_parallel::vocab_parallel_embedding(ids, *model.embedding, region);
  if (model.positions) model.positions->add(stream.residual, cache.length(), positions);
  for (const std::unique_ptr<DecoderLayer>& layer : model.layers) {
    stream = layer->forward_cached(stream, region, rotary, cache);
  }
  cache.advance(positions);

  // Only the last position is asked for: the vocabulary is by far the widest linear.
  stream = {.residual = stream.residual[-1], .delta = stream.delta[-1]};
  const at::Tensor normed = model.final_norm.forward(stream).output;  // [B, H]
  const at::Tensor local = tensor_parallel::linear(normed, model.head(), nullptr).to(at::kFloat);
  const int tp_size = model.tp.size();
  if (tp_size == 1) return local;
  // Ranks may hold unlike numbers of rows: gathered at the length of the longest, then cut.
  const auto rows_of = [&](int rank) {
    return tensor_parallel::share_of(model.config.vocab_size, rank, tp_size).size();
  };
  const at::Tensor transposed = local.t();  // [V/tp, B]
  at::Tensor padded = at::zeros({rows_of(0), local.size(0)}, local.options());
  padded.narrow(0, 0, transposed.size(0)).copy_(transposed);
  at::Tensor gathered = at::empty({tp_size * rows_of(0), local.size(0)}, local.options());
  model.tp.all_gather(gathered, padded);
  std::vector<at::Tensor> parts;
  for (int rank = 0; rank < tp_size; ++rank)
    parts.push_back(gathered.narrow(0, rank * rows_of(0), rows_of(rank)));
  return at::cat(parts).t().contiguous();  // [B, V]
}

std::unique_ptr<KvCache> Decoder::make_cache(int64_t batch, int64_t max_length) const {
  const DecoderConfig& config = impl_->config;
  const HeadShare share = head_share(config, impl_->tp.rank(), impl_->tp.size());
  return std::make_unique<KvCache>(
      KvCacheShape{.layers = config.num_hidden_layers,
                   .max_length = max_length,
                   .batch = batch,
                   .kv_width = share.kv_heads.size() * config.head_dim},
      impl_->embedding->data.options());
}

}  // namespace tptrain::model
