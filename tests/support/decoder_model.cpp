#include "support/decoder_model.h"

#include <ATen/ATen.h>

namespace tptrain::testing {

using model::DecoderConfig;
using model::TokenBatch;

DecoderConfig small_decoder() {
  DecoderConfig config;
  config.vocab_size = 32;
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 8;  // heads * head_dim is twice the hidden size: nothing may assume them equal
  return config;
}

DecoderConfig odd_decoder() {
  DecoderConfig config = small_decoder();
  config.num_hidden_layers = 2;
  config.vocab_size = 103;
  config.intermediate_size = 53;
  config.num_attention_heads = 14;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.qkv_bias = true;
  config.o_bias = true;
  return config;
}

DecoderConfig gpt2_like() {
  DecoderConfig config = odd_decoder();
  config.model_type = "gpt2";
  config.num_attention_heads = 6;
  config.num_key_value_heads = 6;
  config.norm = model::Norm::layer;
  config.norm_eps = 1e-5;
  config.feed_forward = model::FeedForward::gelu;
  config.positions = model::Positions::learned;
  config.max_position_embeddings = 9;  // the longest sequence here
  config.mlp_bias = true;
  config.tie_word_embeddings = true;
  return config;
}

DecoderConfig qwen3_like() {
  DecoderConfig config = odd_decoder();
  config.model_type = "qwen3";
  config.qkv_bias = false;
  config.o_bias = false;
  config.head_dim = 8;
  config.qk_norm = true;
  config.rope_scaling = {.kind = model::RotaryScaling::Kind::llama3,
                         .factor = 8.0,
                         .low_freq_factor = 0.05,
                         .high_freq_factor = 0.5,
                         .original_max_position_embeddings = 12};
  return config;
}

TokenBatch make_batch(const std::string& name, const DecoderConfig& config, int64_t length) {
  TokenBatch batch{.ids = token_ids(name + "/ids", length, 2, config.vocab_size),
                   .targets = token_ids(name + "/targets", length, 2, config.vocab_size)};
  batch.targets[0][0] = -100;
  batch.targets[length - 1][1] = -100;
  return batch;
}

at::Tensor inverse_of(double tokens) { return at::scalar_tensor(1.0 / tokens, at::kFloat); }

BoundDecoder::BoundDecoder(const DecoderConfig& config, comm::Communicator& tp_axis,
                           const model::TrainingOptions& options, const Tensors& weights)
    : tp(tp_axis), decoder(config, tp, options) {
  bind_parameters(decoder.parameters(), weights);
}

at::Tensor BoundDecoder::step(const TokenBatch& batch) {
  return decoder.forward_backward(batch, inverse_of(12), observer);
}

at::Tensor BoundDecoder::evaluate(const TokenBatch& batch) {
  return decoder.evaluate(batch, inverse_of(12), observer);
}

std::vector<at::Tensor> BoundDecoder::gradients() const {
  std::vector<at::Tensor> all;
  for (const parameters::Parameter* parameter : decoder.parameters())
    all.push_back(parameter->main_grad.clone());
  return all;
}

void BoundDecoder::zero_gradients() {
  for (parameters::Parameter* parameter : decoder.parameters()) parameter->main_grad.zero_();
}

bool bitwise_equal(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i], b[i])) return false;
  }
  return true;
}

}  // namespace tptrain::testing
