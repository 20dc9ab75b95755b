#include "model/norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include <optional>

#include "kernels/kernels.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/saved_pointer.h"

namespace tptrain::model {

namespace {

using sharding::Parameter;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class AddRmsNormFunction : public torch::autograd::Function<AddRmsNormFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& residual,
                               const std::optional<at::Tensor>& delta, Parameter* weight,
                               double eps) {
    ctx->set_materialize_grads(false);  // the sum behind the final norm is never used
    ctx->saved_data["weight"] = tensor_parallel::saved_pointer(weight);
    ctx->saved_data["has_delta"] = delta.has_value();
    at::Tensor sum = residual;
    kernels::RmsNormResult norm;
    if (delta) {
      kernels::AddRmsNormResult result = kernels::add_rms_norm(residual, *delta, weight->data, eps);
      sum = result.sum;
      norm = result.norm;
    } else {
      norm = kernels::rms_norm(residual, weight->data, eps);
    }
    ctx->save_for_backward({sum, norm.inverse_rms});
    return {sum, norm.output};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    Parameter& weight = *tensor_parallel::pointer_from<Parameter>(ctx->saved_data["weight"]);
    const at::Tensor grad_output = grads[1].contiguous();
    const at::Tensor grad =
        grads[0].defined()
            ? kernels::add_rms_norm_backward(grads[0].contiguous(), grad_output, saved[0],
                                             weight.data, saved[1], weight.main_grad)
            : kernels::rms_norm_backward(grad_output, saved[0], weight.data, saved[1],
                                         weight.main_grad);
    // The gradient of a sum is that of each summand; without a delta the second place is no
    // variable.
    const bool has_delta = ctx->saved_data["has_delta"].toBool();
    return {grad, has_delta ? grad : at::Tensor(), {}, {}};
  }
};

}  // namespace

RmsNorm::RmsNorm(const Options& options, const comm::Communicator& tp) : eps_(options.eps) {
  tensor_parallel::declare_replicated(weight_, options.name + ".weight", {options.hidden_size},
                                      {.kind = sharding::Init::Kind::ones}, tp);
}

RmsNorm::Result RmsNorm::forward(const ResidualStream& stream) {
  const std::optional<at::Tensor> delta =
      stream.delta.defined() ? std::optional(stream.delta) : std::nullopt;
  const variable_list out = AddRmsNormFunction::apply(stream.residual, delta, &weight_, eps_);
  return {.sum = out[0], .output = out[1]};
}

}  // namespace tptrain::model
