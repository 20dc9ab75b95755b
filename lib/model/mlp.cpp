#include "model/mlp.h"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/kernels.h"

namespace tptrain::model {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class SwigluFunction : public torch::autograd::Function<SwigluFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    return kernels::swiglu(gate_up);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {kernels::swiglu_backward(grads[0].contiguous(), ctx->get_saved_variables()[0])};
  }
};

}  // namespace

Mlp::Mlp(const DecoderConfig& config, const std::string& name, comm::Communicator& tp)
    : gate_up_proj_({.name = name + ".gate_up_proj",
                     .outputs = {{name + ".gate_proj", config.intermediate_size},
                                 {name + ".up_proj", config.intermediate_size}},
                     .in_features = config.hidden_size,
                     .init_std = config.initializer_range},
                    tp),
      down_proj_({.name = name + ".down_proj",
                  .in_features = config.intermediate_size,
                  .out_features = config.hidden_size,
                  .init_std = config.initializer_range},
                 tp) {}

at::Tensor Mlp::forward(const at::Tensor& x) {                   // x [S, B, H]
  const at::Tensor gate_up = gate_up_proj_.forward(x);           // [S, B, 2 * F/tp]
  const at::Tensor activation = SwigluFunction::apply(gate_up);  // [S, B, F/tp]
  return down_proj_.forward(activation);                         // [S, B, H]
}

std::vector<sharding::Parameter*> Mlp::parameters() {
  std::vector<sharding::Parameter*> all = gate_up_proj_.parameters();
  for (sharding::Parameter* parameter : down_proj_.parameters()) all.push_back(parameter);
  return all;
}

}  // namespace tptrain::model
