#include "model/norm.h"

#include "kernels/kernels.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::model {

RmsNorm::RmsNorm(const Options& options, const comm::Communicator& tp) : eps_(options.eps) {
  tensor_parallel::declare_replicated(weight_, options.name + ".weight", {options.hidden_size},
                                      {.kind = sharding::Init::Kind::ones}, options.gradient, tp);
}

RmsNorm::Result RmsNorm::forward(const ResidualStream& stream) const {
  if (!stream.delta.defined()) {
    kernels::RmsNormResult norm = kernels::rms_norm(stream.residual, weight_.data, eps_);
    return {.sum = stream.residual, .output = norm.output, .inverse_rms = norm.inverse_rms};
  }
  kernels::AddRmsNormResult result =
      kernels::add_rms_norm(stream.residual, stream.delta, weight_.data, eps_);
  return {.sum = result.sum, .output = result.norm.output, .inverse_rms = result.norm.inverse_rms};
}

at::Tensor RmsNorm::again(const at::Tensor& sum, const at::Tensor& inverse_rms) const {
  return kernels::rms_norm_again(sum, weight_.data, inverse_rms);
}

at::Tensor RmsNorm::backward(const at::Tensor& grad_output, const at::Tensor& grad_sum,
                             const at::Tensor& sum, const at::Tensor& inverse_rms) {
  if (!grad_sum.defined()) {
    return kernels::rms_norm_backward(grad_output, sum, weight_.data, inverse_rms,
                                      weight_.main_grad);
  }
  return kernels::add_rms_norm_backward(grad_sum, grad_output, sum, weight_.data, inverse_rms,
                                        weight_.main_grad);
}

}  // namespace tptrain::model
