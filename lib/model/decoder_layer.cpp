#include "model/decoder_layer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <utility>

namespace tptrain::model {

using tensor_parallel::Fp8Linear;
using tensor_parallel::GatheredSequence;
using tensor_parallel::LinearGradient;
using tensor_parallel::LinearInput;
using tensor_parallel::ReducedSequence;

namespace {

NormLayer::Options norm_options(const DecoderLayer::Options& layer, const char* name) {
  return {.name = layer.name + name, .gradient = layer.replicated_gradient};
}

LinearSettings linear_settings(const DecoderLayer::Options& layer) {
  return {.replicated_gradient = layer.replicated_gradient,
          .fp8 = layer.fp8,
          .adapters = layer.adapters};
}

// The gradient behind a dropout: a copy, since the residual stream's own gradient is the same
// tensor.
ResidualGradient dropout_backward(const ResidualGradient& grad, const kernels::Dropout& dropout,
                                  int64_t first_position) {
  if (dropout.probability == 0) return grad;
  ResidualGradient dropped = {.rows = grad.rows.clone(), .column_sums = {}};
  kernels::dropout_(dropped.rows, dropout, first_position);
  return dropped;
}

bool any_trains(const std::vector<parameters::Parameter*>& parameters) {
  return std::ranges::any_of(
      parameters, [](const parameters::Parameter* parameter) { return parameter->trains; });
}

at::Tensor whole_of(std::optional<GatheredSequence>& sequence) {
  return sequence ? sequence->whole() : at::Tensor();
}

}  // namespace

DecoderLayer::DecoderLayer(const DecoderConfig& config, const Options& options,
                           const comm::Communicator& tp)
    : index_(options.index),
      in_fp8_(options.fp8 != nullptr),
      input_norm_(config, norm_options(options, ".input_layernorm"), tp),
      attention_(config, options.name + ".self_attn", linear_settings(options), tp),
      post_attention_norm_(config, norm_options(options, ".post_attention_layernorm"), tp),
      mlp_(config, options.name + ".mlp", linear_settings(options), tp) {
  attention_.add_fp8(fp8_linears_);
  mlp_.add_fp8(fp8_linears_);
}

DecoderLayer::Kept DecoderLayer::activations(ResidualStream stream, const LayerContext& context,
                                             Use use) const {
  const auto& region = context.region;
  Fp8Linear::share_weight_amax(fp8_linears_);
  Kept kept;
  // Columns of a whole sequence in 8 bits, for a slice of it in 16: only where nothing is cut.
  for (LinearInput* input : {&kept.qkv_input, &kept.up_input, &kept.down_input})
    input->keep_columns =
        use == Use::backward && context.recompute == Recompute::none && !region.sliced();
  kept.qkv_input.adapter_dropout = context.dropout.adapter(index_, "qkv_proj");
  kept.o_input.adapter_dropout = context.dropout.adapter(index_, "o_proj");
  kept.up_input.adapter_dropout = context.dropout.adapter(index_, "up_proj");
  kept.down_input.adapter_dropout = context.dropout.adapter(index_, "down_proj");
  NormLayer::Result norm = input_norm_.forward(stream);
  stream = {};
  kept.attention_sum = std::move(norm.sum);
  kept.attention_statistics = std::move(norm.statistics);
  kept.attention_input = std::move(norm.output);
  {
    GatheredSequence input = attention_.start_gather(kept.attention_input, region);
    kept.qkv = attention_.qkv(input, context.rotary, &kept.qkv_input);
  }
  if (kept.qkv_input.has_columns()) kept.attention_input.reset();
  kept.attention =
      attention_.attend(kept.qkv.packed, context.dropout.attention(index_, attention_.first_head()),
                        context.attention_documents());
  at::Tensor attended =
      attention_.project(kept.attention.context, region, &kept.o_input).finish();  // [rows, B, H]
  kernels::dropout_(attended, context.dropout.residual(index_, "attention"),
                    region.first_position());

  norm = post_attention_norm_.forward({.residual = kept.attention_sum, .delta = attended});
  kept.mlp_sum = std::move(norm.sum);
  kept.mlp_statistics = std::move(norm.statistics);
  kept.mlp_input = std::move(norm.output);
  {
    GatheredSequence input = mlp_.start_gather(kept.mlp_input, region);
    Mlp::Activated activated = mlp_.up_and_activation(input, &kept.up_input, &kept.down_input);
    kept.up = std::move(activated.up);
    kept.activation = std::move(activated.activation);
  }
  if (kept.up_input.has_columns()) kept.mlp_input.reset();
  return kept;
}

ResidualStream DecoderLayer::forward(ResidualStream stream, const LayerContext& context,
                                     Kept* kept) const {
  const auto stays = [&](LayerTensor what, bool fp8) {
    return model::stays(what, {.recompute = context.recompute, .fp8 = fp8},
                        context.region.sliced());
  };
  const ResidualStream input = stays(LayerTensor::input, in_fp8_) ? stream : ResidualStream{};
  Kept all = activations(std::move(stream), context, kept ? Use::backward : Use::forward);
  at::Tensor fed_forward = mlp_.down(all.activation, context.region, &all.down_input).finish();
  if (all.down_input.has_columns()) all.activation.reset();
  kernels::dropout_(fed_forward, context.dropout.residual(index_, "mlp"),
                    context.region.first_position());
  ResidualStream output = {.residual = all.mlp_sum, .delta = std::move(fed_forward)};
  if (kept == nullptr) return output;
  if (stays(LayerTensor::input, in_fp8_)) {
    *kept = {};
    kept->input = input;
    return output;
  }
  for (const Kept::Declared& made : all.tensors()) {
    const bool fp8 = made.of_linear != nullptr && made.of_linear->has_columns();
    if (!stays(made.what, fp8)) made.tensor->reset();
  }
  *kept = std::move(all);
  return output;
}

std::vector<DecoderLayer::Kept::Declared> DecoderLayer::Kept::tensors() {
  using What = LayerTensor;
  return {{What::attention_sum, &attention_sum},
          {What::attention_statistics, &attention_statistics},
          {What::attention_input, &attention_input, &qkv_input},
          {What::qkv_columns, &qkv_input.cast.columns, &qkv_input},
          {What::qkv, &qkv.packed},
          {What::unnormed, &qkv.unnormed},
          {What::qkv_down, &qkv_input.adapter_down},
          {What::context, &attention.context},
          {What::logsumexp, &attention.logsumexp},
          {What::o_down, &o_input.adapter_down},
          {What::mlp_sum, &mlp_sum},
          {What::mlp_statistics, &mlp_statistics},
          {What::mlp_input, &mlp_input, &up_input},
          {What::up_columns, &up_input.cast.columns, &up_input},
          {What::up, &up},
          {What::up_down, &up_input.adapter_down},
          {What::activation, &activation, &down_input},
          {What::down_columns, &down_input.cast.columns, &down_input},
          {What::down_down, &down_input.adapter_down}};
}

ResidualGradient DecoderLayer::backward(ResidualGradient grad, Kept kept,
                                        const LayerContext& context, Below below) {
  if (kept.input.residual.defined()) {
    ResidualStream input = std::move(kept.input);
    kept = activations(std::move(input), context, Use::backward);
  }
  // In FP8 the casts that weights' gradients read are made with the input's gradient.
  const bool ends_here = below == Below::frozen && !in_fp8_;
  const auto unless_unused = [&](NormLayer& norm) {
    return ends_here && !any_trains(norm.parameters()) ? InputGradient::unused
                                                       : InputGradient::wanted;
  };
  if (ends_here && !any_trains(input_norm_.parameters()) && !any_trains(attention_.parameters())) {
    mlp_backward(grad, kept, context, unless_unused(post_attention_norm_));
    return {};
  }
  grad = mlp_backward(grad, kept, context, InputGradient::wanted);
  return attention_backward(grad, kept, context, unless_unused(input_norm_));
}

// The gradient of the residual sum before the feed-forward sublayer, from that behind it. What tp
// moves is begun early and ended late: the input is gathered for the weight's gradient while the
// products before it run, and the gradient of the input is summed under the weights' gradients.
// What has served is freed at once: the next product may take its memory.
ResidualGradient DecoderLayer::mlp_backward(const ResidualGradient& grad, Kept& kept,
                                            const LayerContext& context,
                                            InputGradient input_gradient) {
  const auto& region = context.region;
  const auto [grad_sum, column_sums] =
      dropout_backward(grad, context.dropout.residual(index_, "mlp"), region.first_position());
  mlp_.bias_backward(grad_sum, column_sums);
  std::optional<GatheredSequence> grad_output = mlp_.start_gather_gradient(grad_sum, region);
  std::optional<GatheredSequence> input;  // none: its columns are there
  if (!kept.up_input.has_columns()) {
    if (!kept.mlp_input.defined())
      kept.mlp_input = post_attention_norm_.recompute(kept.mlp_sum, kept.mlp_statistics);
    input = mlp_.start_gather(std::exchange(kept.mlp_input, {}), region, &kept.up_input);
  }
  if (!kept.activation.defined() && !kept.down_input.has_columns())
    kept.activation = mlp_.activation(kept.up);
  LinearGradient of_down, of_up;
  at::Tensor grad_up =
      mlp_.down_input_gradient(*grad_output, kept.up, kept.down_input, of_down, of_up);
  kept.up.reset();
  std::optional<ReducedSequence> grad_input;
  if (input_gradient == InputGradient::wanted)
    grad_input = mlp_.up_input_gradient(grad_up, region, kept.up_input, of_up);
  mlp_.down_weight_gradient(grad_output->whole(), std::exchange(kept.activation, {}),
                            std::exchange(of_down, {}), std::exchange(kept.down_input, {}));
  grad_output.reset();
  mlp_.up_weight_gradient(std::exchange(grad_up, {}), whole_of(input), std::exchange(of_up, {}),
                          std::exchange(kept.up_input, {}));
  input.reset();
  if (!grad_input) return {};
  return post_attention_norm_.backward(grad_input->finish(), grad.rows,
                                       std::exchange(kept.mlp_sum, {}), kept.mlp_statistics);
}

ResidualGradient DecoderLayer::attention_backward(const ResidualGradient& grad, Kept& kept,
                                                  const LayerContext& context,
                                                  InputGradient input_gradient) {
  const auto& region = context.region;
  const auto [grad_sum, column_sums] = dropout_backward(
      grad, context.dropout.residual(index_, "attention"), region.first_position());
  attention_.bias_backward(grad_sum, column_sums);
  std::optional<GatheredSequence> grad_output = attention_.start_gather_gradient(grad_sum, region);
  std::optional<GatheredSequence> input;  // none: its columns are there
  if (!kept.qkv_input.has_columns()) {
    if (!kept.attention_input.defined())
      kept.attention_input = input_norm_.recompute(kept.attention_sum, kept.attention_statistics);
    input =
        attention_.start_gather(std::exchange(kept.attention_input, {}), region, &kept.qkv_input);
  }
  LinearGradient of_o, of_qkv;
  at::Tensor grad_context = attention_.project_input_gradient(*grad_output, kept.o_input, of_o);
  attention_.project_weight_gradient(grad_output->whole(), kept.attention.context,
                                     std::exchange(of_o, {}), std::exchange(kept.o_input, {}));
  grad_output.reset();
  at::Tensor grad_qkv =
      attention_.attend_backward(std::exchange(grad_context, {}), std::exchange(kept.qkv, {}),
                                 std::exchange(kept.attention, {}), context.rotary,
                                 context.dropout.attention(index_, attention_.first_head()),
                                 context.attention_documents(), of_qkv);
  std::optional<ReducedSequence> grad_input;
  if (input_gradient == InputGradient::wanted)
    grad_input = attention_.qkv_input_gradient(grad_qkv, region, kept.qkv_input, of_qkv);
  attention_.qkv_weight_gradient(std::exchange(grad_qkv, {}), whole_of(input),
                                 std::exchange(of_qkv, {}), std::exchange(kept.qkv_input, {}));
  input.reset();
  if (!grad_input) return {};
  return input_norm_.backward(grad_input->finish(), grad.rows,
                              std::exchange(kept.attention_sum, {}), kept.attention_statistics);
}

ResidualStream DecoderLayer::forward_cached(const ResidualStream& stream,
                                            const tensor_parallel::SequenceRegion& region,
                                            const kernels::RotaryTable& rotary,
                                            KvCache& cache) const {
  Fp8Linear::share_weight_amax(fp8_linears_);
  const NormLayer::Result first = input_norm_.forward(stream);
  at::Tensor attended =
      region.reduce(attention_.forward_cached(first.output, rotary, cache, index_));
  const NormLayer::Result second =
      post_attention_norm_.forward({.residual = first.sum, .delta = attended});
  GatheredSequence input = region.start_gather(second.output);
  at::Tensor fed_forward =
      mlp_.down(mlp_.activation(mlp_.up(input, nullptr)), region, nullptr).finish();
  return {.residual = second.sum, .delta = std::move(fed_forward)};
}

std::vector<parameters::Parameter*> DecoderLayer::parameters() {
  std::vector<parameters::Parameter*> all;
  for (const auto& parameters : {input_norm_.parameters(), attention_.parameters(),
                                 post_attention_norm_.parameters(), mlp_.parameters()})
    all.insert(all.end(), parameters.begin(), parameters.end());
  return all;
}

void DecoderLayer::add_linears_in_bf16(std::vector<std::string>& names) const {
  attention_.add_linears_in_bf16(names);
  mlp_.add_linears_in_bf16(names);
}

}  // namespace tptrain::model
