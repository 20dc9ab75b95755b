#include "model/mlp.h"

#include "kernels/kernels.h"

namespace tptrain::model {

namespace {

using tensor_parallel::Bias;
using tensor_parallel::ColumnParallelLinear;

Bias bias_of(const DecoderConfig& config) { return config.mlp_bias ? Bias::learned : Bias::none; }

ColumnParallelLinear::Options up_options(const DecoderConfig& config, const std::string& name,
                                         const comm::Communicator& tp) {
  const auto output = [&](const char* projection) {
    return ColumnParallelLinear::Output{
        .name = name + projection,
        .features = config.intermediate_size,
        .local = tensor_parallel::share_of(config.intermediate_size, tp.rank(), tp.size())};
  };
  ColumnParallelLinear::Options options = {.name = name + ".up_proj",
                                           .outputs = {output(".up_proj")},
                                           .in_features = config.hidden_size,
                                           .bias = bias_of(config),
                                           .init_std = config.initializer_range};
  if (config.feed_forward == FeedForward::swiglu) {
    options.name = name + ".gate_up_proj";
    options.outputs.insert(options.outputs.begin(), output(".gate_proj"));
  }
  return options;
}

}  // namespace

Mlp::Mlp(const DecoderConfig& config, const std::string& name,
         sharding::TpGradient replicated_gradient, const comm::Communicator& tp)
    : form_(config.feed_forward),
      up_proj_(up_options(config, name, tp)),
      down_proj_(
          {.name = name + ".down_proj",
           .in_features = config.intermediate_size,
           .out_features = config.hidden_size,
           .local = tensor_parallel::share_of(config.intermediate_size, tp.rank(), tp.size()),
           .bias = bias_of(config),
           .init_std = config.initializer_range,
           .bias_gradient = replicated_gradient},
          tp) {}

at::Tensor Mlp::activation(const at::Tensor& up) const {
  return form_ == FeedForward::swiglu ? kernels::swiglu(up) : kernels::gelu_tanh(up);
}

at::Tensor Mlp::down_input_gradient(tensor_parallel::GatheredSequence& grad_output,
                                    const at::Tensor& up) const {
  const at::Tensor grad_activation = down_proj_.input_gradient(grad_output);
  return form_ == FeedForward::swiglu ? kernels::swiglu_backward(grad_activation, up)
                                      : kernels::gelu_tanh_backward(grad_activation, up);
}

std::vector<sharding::Parameter*> Mlp::parameters() {
  std::vector<sharding::Parameter*> all = up_proj_.parameters();
  for (sharding::Parameter* parameter : down_proj_.parameters()) all.push_back(parameter);
  return all;
}

}  // namespace tptrain::model
