#include "model/mlp.h"

#include <utility>

#include "kernels/kernels.h"

namespace tptrain::model {

namespace {

using tensor_parallel::Bias;
using tensor_parallel::ColumnParallelLinear;

Bias bias_of(const DecoderConfig& config) { return config.mlp_bias ? Bias::learned : Bias::none; }

int64_t ffn_of(const DecoderConfig& config, int rank, const comm::Communicator& tp) {
  return tensor_parallel::share_of(config.intermediate_size, rank, tp.size()).size();
}

ColumnParallelLinear::Options up_options(const DecoderConfig& config, const std::string& name,
                                         const LinearSettings& linears,
                                         const comm::Communicator& tp) {
  const auto output = [&](const char* projection) {
    return ColumnParallelLinear::Output{
        .name = name + projection,
        .features = config.intermediate_size,
        .local = tensor_parallel::share_of(config.intermediate_size, tp.rank(), tp.size()),
        .adapter = linears.adapter_of(name + projection)};
  };
  ColumnParallelLinear::Options options = {.name = name + ".up_proj",
                                           .outputs = {output(".up_proj")},
                                           .in_features = config.hidden_size,
                                           .bias = bias_of(config),
                                           .init_std = config.initializer_range,
                                           .low_rank = linears.low_rank()};
  const bool gated = config.feed_forward == FeedForward::swiglu;
  options.fp8 = linears.fp8_of(tp.size(), [&](int rank) {
    return std::pair((gated ? 2 : 1) * ffn_of(config, rank, tp), config.hidden_size);
  });
  if (gated) {
    options.name = name + ".gate_up_proj";
    options.outputs.insert(options.outputs.begin(), output(".gate_proj"));
  }
  return options;
}

}  // namespace

Mlp::Mlp(const DecoderConfig& config, const std::string& name, const LinearSettings& linears,
         const comm::Communicator& tp)
    : form_(config.feed_forward),
      up_proj_(up_options(config, name, linears, tp), tp),
      down_proj_(
          {.name = name + ".down_proj",
           .in_features = config.intermediate_size,
           .out_features = config.hidden_size,
           .local = tensor_parallel::share_of(config.intermediate_size, tp.rank(), tp.size()),
           .bias = bias_of(config),
           .init_std = config.initializer_range,
           .bias_gradient = linears.replicated_gradient,
           .fp8 = linears.fp8_of(
               tp.size(),
               [&](int rank) { return std::pair(config.hidden_size, ffn_of(config, rank, tp)); }),
           .adapter = linears.adapter_of(name + ".down_proj"),
           .low_rank = linears.low_rank()},
          tp) {}

Mlp::Activated Mlp::up_and_activation(tensor_parallel::GatheredSequence& x,
                                      tensor_parallel::LinearInput* input,
                                      tensor_parallel::LinearInput* down_input) const {
  if (form_ == FeedForward::gelu && up_proj_.fuses_gelu()) {
    auto [output, activation] = up_proj_.forward_gelu(x);
    return {.up = std::move(output), .activation = std::move(activation)};
  }
  // In FP8 the next product's scale is found on the way.
  if (form_ == FeedForward::swiglu && up_proj_.fuses_swiglu() && !down_proj_.runs_in_fp8()) {
    auto [output, activation] = up_proj_.forward_swiglu(x);
    return {.up = std::move(output), .activation = std::move(activation)};
  }
  Activated result = {.up = up(x, input), .activation = {}};
  result.activation = activation(result.up, down_input);
  return result;
}

at::Tensor Mlp::activation(const at::Tensor& up, tensor_parallel::LinearInput* down_input) const {
  if (form_ != FeedForward::swiglu) return kernels::gelu_tanh(up);
  if (down_input == nullptr || !down_proj_.runs_in_fp8()) return kernels::swiglu(up);
  down_input->cast.amax = kernels::fp8_amax(up);
  return kernels::swiglu(up, down_input->cast.amax);
}

at::Tensor Mlp::down_input_gradient(tensor_parallel::GatheredSequence& grad_output,
                                    const at::Tensor& up, const tensor_parallel::LinearInput& input,
                                    tensor_parallel::LinearGradient& grad,
                                    tensor_parallel::LinearGradient& up_grad) const {
  if (form_ == FeedForward::gelu && down_proj_.fuses_gelu())
    return down_proj_.input_gradient_gelu(grad_output, up);
  if (form_ == FeedForward::swiglu && down_proj_.fuses_swiglu() && !up_proj_.runs_in_fp8())
    return down_proj_.input_gradient_swiglu(grad_output, up);
  const at::Tensor grad_activation = down_proj_.input_gradient(grad_output, input, grad);
  if (form_ != FeedForward::swiglu) return kernels::gelu_tanh_backward(grad_activation, up);
  if (up_proj_.runs_in_fp8()) up_grad.cast.amax = kernels::fp8_amax(up);
  return kernels::swiglu_backward(grad_activation, up, up_grad.cast.amax);
}

std::vector<parameters::Parameter*> Mlp::parameters() {
  std::vector<parameters::Parameter*> all = up_proj_.parameters();
  for (parameters::Parameter* parameter : down_proj_.parameters()) all.push_back(parameter);
  return all;
}

void Mlp::add_fp8(std::vector<tensor_parallel::Fp8Linear*>& linears) const {
  if (up_proj_.fp8() != nullptr) linears.push_back(up_proj_.fp8());
  if (down_proj_.fp8() != nullptr) linears.push_back(down_proj_.fp8());
}

void Mlp::add_linears_in_bf16(std::vector<std::string>& names) const {
  if (!up_proj_.runs_in_fp8()) names.push_back(up_proj_.name());
  if (!down_proj_.runs_in_fp8()) names.push_back(down_proj_.name());
}

}  // namespace tptrain::model
