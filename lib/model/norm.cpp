#include "model/norm.h"

#include <utility>

#include "kernels/kernels.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

using tensor_parallel::gradient_or_scratch;

NormLayer::NormLayer(const DecoderConfig& config, const Options& options,
                     const comm::Communicator& tp)
    : eps_(config.norm_eps) {
  tensor_parallel::declare_replicated(weight_, options.name + ".weight", {config.hidden_size},
                                      {.kind = sharding::Init::Kind::ones}, options.gradient, tp);
  if (config.norm == Norm::rms) return;
  bias_ = std::make_unique<parameters::Parameter>();
  tensor_parallel::declare_replicated(*bias_, options.name + ".bias", {config.hidden_size},
                                      {.kind = sharding::Init::Kind::zeros}, options.gradient, tp);
}

NormLayer::Result NormLayer::forward(const ResidualStream& stream) const {
  if (!stream.delta.defined()) {
    if (!bias_) {
      kernels::RmsNormResult norm = kernels::rms_norm(stream.residual, weight_.data, eps_);
      return {stream.residual, std::move(norm.output), std::move(norm.inverse_rms)};
    }
    kernels::LayerNormResult norm =
        kernels::layer_norm(stream.residual, weight_.data, bias_->data, eps_);
    return {stream.residual, std::move(norm.output), std::move(norm.statistics)};
  }
  if (!bias_) {
    kernels::AddRmsNormResult added =
        kernels::add_rms_norm(stream.residual, stream.delta, weight_.data, eps_);
    return {std::move(added.sum), std::move(added.norm.output), std::move(added.norm.inverse_rms)};
  }
  kernels::AddLayerNormResult added =
      kernels::add_layer_norm(stream.residual, stream.delta, weight_.data, bias_->data, eps_);
  return {std::move(added.sum), std::move(added.norm.output), std::move(added.norm.statistics)};
}

at::Tensor NormLayer::recompute(const at::Tensor& sum, const at::Tensor& statistics) const {
  return bias_ ? kernels::layer_norm_again(sum, weight_.data, bias_->data, statistics)
               : kernels::rms_norm_again(sum, weight_.data, statistics);
}

ResidualGradient NormLayer::backward(const at::Tensor& grad_output, const at::Tensor& grad_sum,
                                     const at::Tensor& sum, const at::Tensor& statistics) {
  at::Tensor weight_grad = gradient_or_scratch(weight_);
  ResidualGradient grad;
  if (!bias_) {
    grad.rows =
        grad_sum.defined()
            ? kernels::add_rms_norm_backward(grad_sum, grad_output, sum, weight_.data, statistics,
                                             weight_grad)
            : kernels::rms_norm_backward(grad_output, sum, weight_.data, statistics, weight_grad);
    return grad;
  }
  at::Tensor bias_grad = gradient_or_scratch(*bias_);
  grad.rows =
      grad_sum.defined()
          ? kernels::add_layer_norm_backward(grad_sum, grad_output, sum, weight_.data, statistics,
                                             weight_grad, bias_grad, &grad.column_sums)
          : kernels::layer_norm_backward(grad_output, sum, weight_.data, statistics, weight_grad,
                                         bias_grad, &grad.column_sums);
  return grad;
}

std::vector<parameters::Parameter*> NormLayer::parameters() {
  std::vector<parameters::Parameter*> all = {&weight_};
  if (bias_) all.push_back(bias_.get());
  return all;
}

}  // namespace tptrain::model
