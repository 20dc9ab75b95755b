#include "model/decoder_layer.h"

#include <ATen/ATen.h>

#include <utility>

namespace tptrain::model {

namespace {

RmsNorm::Options norm_options(const DecoderConfig& config, const DecoderLayer::Options& layer,
                              const char* name) {
  return {.name = layer.name + name,
          .hidden_size = config.hidden_size,
          .eps = config.norm_eps,
          .gradient = layer.replicated_gradient};
}

// The gradient behind a dropout: a copy, since the residual stream's own gradient is the same
// tensor.
at::Tensor dropout_backward(const at::Tensor& grad, const kernels::Dropout& dropout,
                            int64_t first_position) {
  if (dropout.probability == 0) return grad;
  at::Tensor dropped = grad.clone();
  kernels::dropout_(dropped, dropout, first_position);
  return dropped;
}

}  // namespace

DecoderLayer::DecoderLayer(const DecoderConfig& config, const Options& options,
                           const comm::Communicator& tp)
    : index_(options.index),
      input_norm_(norm_options(config, options, ".input_layernorm"), tp),
      attention_(config, options.name + ".self_attn", options.replicated_gradient, tp),
      post_attention_norm_(norm_options(config, options, ".post_attention_layernorm"), tp),
      mlp_(config, options.name + ".mlp", tp) {}

DecoderLayer::Kept DecoderLayer::activations(ResidualStream stream,
                                             const LayerContext& context) const {
  const auto& region = context.region;
  Kept kept;
  RmsNorm::Result norm = input_norm_.forward(stream);
  stream = {};
  kept.attention_sum = std::move(norm.sum);
  kept.attention_inverse_rms = std::move(norm.inverse_rms);
  kept.attention_input = std::move(norm.output);
  kept.qkv = attention_.rotated_qkv(region.gather(kept.attention_input), context.rotary);
  kept.attention =
      attention_.attend(kept.qkv, context.dropout.attention(index_, attention_.first_head()));
  at::Tensor attended = region.reduce(attention_.project(kept.attention.context));  // [rows, B, H]
  attention_.add_bias(attended);
  kernels::dropout_(attended, context.dropout.residual(index_, "attention"),
                    region.first_position());

  norm = post_attention_norm_.forward({.residual = kept.attention_sum, .delta = attended});
  kept.mlp_sum = std::move(norm.sum);
  kept.mlp_inverse_rms = std::move(norm.inverse_rms);
  kept.mlp_input = std::move(norm.output);
  kept.gate_up = mlp_.gate_up(region.gather(kept.mlp_input));
  kept.product = mlp_.product(kept.gate_up);
  return kept;
}

ResidualStream DecoderLayer::forward(ResidualStream stream, const LayerContext& context,
                                     Kept* kept) const {
  const ResidualStream input = context.recompute == Recompute::full ? stream : ResidualStream{};
  Kept all = activations(std::move(stream), context);
  at::Tensor fed_forward = context.region.reduce(mlp_.down(all.product));
  kernels::dropout_(fed_forward, context.dropout.residual(index_, "mlp"),
                    context.region.first_position());
  ResidualStream output = {.residual = all.mlp_sum, .delta = std::move(fed_forward)};
  if (kept == nullptr) return output;
  switch (context.recompute) {
    case Recompute::none:
      break;
    case Recompute::selective:
      for (at::Tensor* made_again : {&all.attention_input, &all.qkv, &all.mlp_input, &all.product})
        made_again->reset();
      break;
    case Recompute::full:
      all = {};
      all.input = input;
      break;
  }
  *kept = std::move(all);
  return output;
}

at::Tensor DecoderLayer::backward(at::Tensor grad, Kept kept, const LayerContext& context) {
  if (kept.input.residual.defined()) {
    ResidualStream input = std::move(kept.input);
    kept = activations(std::move(input), context);
  }
  grad = mlp_backward(grad, kept, context);
  return attention_backward(grad, kept, context);
}

// The gradient of the residual sum before the feed-forward sublayer, from that behind it. What has
// served is freed at once: the next product may take its memory.
at::Tensor DecoderLayer::mlp_backward(const at::Tensor& grad, Kept& kept,
                                      const LayerContext& context) {
  const auto& region = context.region;
  at::Tensor grad_gate_up;
  {
    const at::Tensor grad_output = region.gather(
        dropout_backward(grad, context.dropout.residual(index_, "mlp"), region.first_position()));
    if (!kept.product.defined()) kept.product = mlp_.product(kept.gate_up);
    grad_gate_up = mlp_.down_backward(grad_output, kept.product, kept.gate_up);
    kept.product.reset();
    kept.gate_up.reset();
  }
  if (!kept.mlp_input.defined())
    kept.mlp_input = post_attention_norm_.again(kept.mlp_sum, kept.mlp_inverse_rms);
  at::Tensor partial;
  {
    const at::Tensor input = region.gather(std::exchange(kept.mlp_input, {}));
    partial = mlp_.gate_up_backward(grad_gate_up, input);
    grad_gate_up.reset();
  }
  const at::Tensor grad_input = region.reduce(std::move(partial));
  return post_attention_norm_.backward(grad_input, grad, std::exchange(kept.mlp_sum, {}),
                                       kept.mlp_inverse_rms);
}

at::Tensor DecoderLayer::attention_backward(const at::Tensor& grad, Kept& kept,
                                            const LayerContext& context) {
  const auto& region = context.region;
  at::Tensor grad_context;
  {
    const at::Tensor grad_sum = dropout_backward(
        grad, context.dropout.residual(index_, "attention"), region.first_position());
    attention_.bias_backward(grad_sum);
    grad_context = attention_.project_backward(region.gather(grad_sum), kept.attention.context);
  }
  if (!kept.attention_input.defined())
    kept.attention_input = input_norm_.again(kept.attention_sum, kept.attention_inverse_rms);
  at::Tensor input;  // [S, B, H]: gathered once, for qkv again and for the weight gradient
  if (!kept.qkv.defined()) {
    input = region.gather(std::exchange(kept.attention_input, {}));
    kept.qkv = attention_.rotated_qkv(input, context.rotary);
  }
  at::Tensor grad_qkv = attention_.attend_backward(
      grad_context, std::exchange(kept.qkv, {}), std::exchange(kept.attention, {}), context.rotary,
      context.dropout.attention(index_, attention_.first_head()));
  grad_context.reset();
  if (!input.defined()) input = region.gather(std::exchange(kept.attention_input, {}));
  at::Tensor partial = attention_.qkv_backward(grad_qkv, input);
  grad_qkv.reset();
  input.reset();
  const at::Tensor grad_input = region.reduce(std::move(partial));
  return input_norm_.backward(grad_input, grad, std::exchange(kept.attention_sum, {}),
                              kept.attention_inverse_rms);
}

ResidualStream DecoderLayer::forward_cached(const ResidualStream& stream,
                                            const tensor_parallel::SequenceRegion& region,
                                            const kernels::RotaryTable& rotary,
                                            KvCache& cache) const {
  const RmsNorm::Result first = input_norm_.forward(stream);
  at::Tensor attended =
      region.reduce(attention_.forward_cached(first.output, rotary, cache, index_));
  attention_.add_bias(attended);
  const RmsNorm::Result second =
      post_attention_norm_.forward({.residual = first.sum, .delta = attended});
  return {.residual = second.sum,
          .delta = region.reduce(mlp_.down(mlp_.product(mlp_.gate_up(second.output))))};
}

std::vector<sharding::Parameter*> DecoderLayer::parameters() {
  std::vector<sharding::Parameter*> all = {&input_norm_.weight()};
  for (sharding::Parameter* parameter : attention_.parameters()) all.push_back(parameter);
  all.push_back(&post_attention_norm_.weight());
  for (sharding::Parameter* parameter : mlp_.parameters()) all.push_back(parameter);
  return all;
}

}  // namespace tptrain::model
