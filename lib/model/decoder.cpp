#include "model/decoder.h"

#include <ATen/ATen.h>

#include <string>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "kernels/kernels.h"
#include "model/attention.h"
#include "model/block_boundary.h"
#include "model/mlp.h"
#include "model/norm.h"
#include "tensor_parallel/vocab_parallel.h"

namespace tptrain::model {

namespace {

using sharding::Parameter;
using sharding::ParameterBlock;
using tensor_parallel::BlockObserver;

// The tensors' names in Hugging Face's llama and qwen2, which share them.
std::string layer_name(int64_t layer) { return cat("model.layers.", layer); }

RmsNorm::Options norm_options(const DecoderConfig& config, std::string name) {
  return {.name = std::move(name), .hidden_size = config.hidden_size, .eps = config.rms_norm_eps};
}

tensor_parallel::VocabTableOptions table_options(const DecoderConfig& config, std::string name) {
  return {.name = std::move(name),
          .vocab_size = config.vocab_size,
          .hidden_size = config.hidden_size,
          .init_std = config.initializer_range};
}

// A pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)). Each addition is left to the
// norm that follows it.
struct DecoderLayer {
  DecoderLayer(const DecoderConfig& config, const std::string& name, comm::Communicator& tp)
      : input_norm(norm_options(config, name + ".input_layernorm"), tp),
        attention(config, name + ".self_attn", tp),
        post_attention_norm(norm_options(config, name + ".post_attention_layernorm"), tp),
        mlp(config, name + ".mlp", tp) {}

  ResidualStream forward(const ResidualStream& stream, const kernels::RotaryTable& rotary) {
    const RmsNorm::Result first = input_norm.forward(stream);
    const at::Tensor attended = attention.forward(first.output, rotary);
    const RmsNorm::Result second =
        post_attention_norm.forward({.residual = first.sum, .delta = attended});
    return {.residual = second.sum, .delta = mlp.forward(second.output)};
  }

  ResidualStream forward_cached(const ResidualStream& stream, const kernels::RotaryTable& rotary,
                                KvCache& cache, int64_t layer) {
    const RmsNorm::Result first = input_norm.forward(stream);
    const at::Tensor attended = attention.forward_cached(first.output, rotary, cache, layer);
    const RmsNorm::Result second =
        post_attention_norm.forward({.residual = first.sum, .delta = attended});
    return {.residual = second.sum, .delta = mlp.forward(second.output)};
  }

  std::vector<Parameter*> parameters() {
    std::vector<Parameter*> all = {&input_norm.weight()};
    for (Parameter* parameter : attention.parameters()) all.push_back(parameter);
    all.push_back(&post_attention_norm.weight());
    for (Parameter* parameter : mlp.parameters()) all.push_back(parameter);
    return all;
  }

  RmsNorm input_norm;
  Attention attention;
  RmsNorm post_attention_norm;
  Mlp mlp;
};

}  // namespace

struct Decoder::Impl {
  Impl(const DecoderConfig& decoder_config, comm::Communicator& tp_axis)
      : config(decoder_config),
        tp(tp_axis),
        embedding(
            tensor_parallel::vocab_parallel_table(table_options(config, "model.embed_tokens"), tp)),
        final_norm(norm_options(config, "model.norm"), tp) {
    blocks.push_back({.name = "embedding", .parameters = {embedding.get()}});
    for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layers.push_back(std::make_unique<DecoderLayer>(config, layer_name(i), tp));
      blocks.push_back({.name = cat("layer ", i), .parameters = layers.back()->parameters()});
    }
    blocks.push_back({.name = "head", .parameters = {&final_norm.weight()}});
    if (config.tie_word_embeddings) return;
    untied_head = tensor_parallel::vocab_parallel_table(table_options(config, "lm_head"), tp);
    blocks.back().parameters.push_back(untied_head.get());
  }

  Parameter& head() { return untied_head ? *untied_head : *embedding; }
  int head_block() const { return static_cast<int>(blocks.size()) - 1; }

  const kernels::RotaryTable& rotary(int64_t length, at::Device device) {
    const bool fits = training_rotary.cos.defined() && training_rotary.cos.size(0) == length &&
                      training_rotary.cos.device() == device;
    if (!fits) {
      training_rotary =
          kernels::rotary_table(0, length, config.head_dim, config.rope_theta, device);
    }
    return training_rotary;
  }

  DecoderConfig config;
  comm::Communicator& tp;
  std::unique_ptr<Parameter> embedding;  // [V/tp, H]
  std::vector<std::unique_ptr<DecoderLayer>> layers;
  RmsNorm final_norm;
  std::unique_ptr<Parameter>
      untied_head;  // [V/tp, H]; null where the head is the embedding's table
  std::vector<ParameterBlock> blocks;
  kernels::RotaryTable training_rotary;  // of the last sequence length, which rarely changes
};

Decoder::Decoder(const DecoderConfig& config, comm::Communicator& tp)
    : impl_(std::make_unique<Impl>(config, tp)) {}

Decoder::~Decoder() = default;

const DecoderConfig& Decoder::config() const { return impl_->config; }

const std::vector<ParameterBlock>& Decoder::blocks() const { return impl_->blocks; }

std::vector<Parameter*> Decoder::parameters() const {
  std::vector<Parameter*> all;
  for (const ParameterBlock& block : impl_->blocks) {
    all.insert(all.end(), block.parameters.begin(), block.parameters.end());
  }
  return all;
}

at::Tensor Decoder::loss(const at::Tensor& ids, const at::Tensor& targets,
                         const at::Tensor& inverse_target_tokens, BlockObserver& observer) {
  Impl& model = *impl_;
  const kernels::RotaryTable& rotary = model.rotary(ids.size(0), ids.device());

  // Parameters are no autograd leaves and ids have no gradient: the graph hangs on this scalar.
  at::Tensor anchor = at::zeros({}, ids.options().dtype(at::kFloat));
  if (at::GradMode::is_enabled()) anchor.requires_grad_(true);

  observer.before_forward(0);
  ResidualStream stream;
  stream.residual = tensor_parallel::vocab_parallel_embedding(
      ids, *model.embedding, enter_block(anchor, observer, 0), model.tp);  // [S, B, H]
  stream = leave_block(stream, observer, 0);
  observer.after_forward(0);

  int block = 1;
  for (const std::unique_ptr<DecoderLayer>& layer : model.layers) {
    observer.before_forward(block);
    stream = enter_block(stream, observer, block);
    stream = layer->forward(stream, rotary);
    stream = leave_block(stream, observer, block);
    observer.after_forward(block);
    ++block;
  }

  observer.before_forward(block);
  const at::Tensor normed = model.final_norm.forward(enter_block(stream, observer, block)).output;
  const at::Tensor hidden = normed.view({-1, model.config.hidden_size});  // [T, H]
  const at::Tensor logits =
      tensor_parallel::vocab_parallel_logits(hidden, model.head(), model.tp);  // [T, V/tp]
  at::Tensor loss = tensor_parallel::vocab_parallel_cross_entropy(logits, targets.reshape({-1}),
                                                                  inverse_target_tokens, model.tp);
  loss = leave_block(loss, observer, block);
  observer.after_forward(block);
  return loss;
}

at::Tensor Decoder::next_token_logits(const at::Tensor& ids, KvCache& cache) {
  const at::NoGradGuard no_grad;
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
  const kernels::RotaryTable rotary = kernels::rotary_table(
      cache.length(), positions, model.config.head_dim, model.config.rope_theta, ids.device());

  const at::Tensor no_anchor = at::zeros({}, ids.options().dtype(at::kFloat));  // no graph to hang
  ResidualStream stream;
  stream.residual =
      tensor_parallel::vocab_parallel_embedding(ids, *model.embedding, no_anchor, model.tp);
  for (size_t i = 0; i < model.layers.size(); ++i) {
    stream = model.layers[i]->forward_cached(stream, rotary, cache, static_cast<int64_t>(i));
  }
  cache.advance(positions);

  // Only the last position is asked for: the vocabulary is by far the widest linear.
  stream = {.residual = stream.residual[-1], .delta = stream.delta[-1]};
  const at::Tensor normed = model.final_norm.forward(stream).output;  // [B, H]
  const at::Tensor local =
      tensor_parallel::vocab_parallel_logits(normed, model.head(), model.tp).to(at::kFloat);
  if (model.tp.size() == 1) return local;
  at::Tensor gathered = at::empty({model.tp.size(), local.size(0), local.size(1)}, local.options());
  model.tp.all_gather(gathered, local);  // [tp, B, V/tp]
  return gathered.transpose(0, 1).reshape({local.size(0), model.config.vocab_size});
}

std::unique_ptr<KvCache> Decoder::make_cache(int64_t batch, int64_t max_length) const {
  const DecoderConfig& config = impl_->config;
  return std::make_unique<KvCache>(
      KvCacheShape{.layers = config.num_hidden_layers,
                   .max_length = max_length,
                   .batch = batch,
                   .kv_width = config.num_key_value_heads / impl_->tp.size() * config.head_dim},
      impl_->embedding->data.options());
}

}  // namespace tptrain::model
