#include "tensor_parallel/parallel_linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "kernels/kernels.h"
#include "tensor_parallel/regions.h"
#include "tensor_parallel/saved_pointer.h"

namespace tptrain::tensor_parallel {

namespace {

using sharding::Init;
using sharding::NamedSlice;
using sharding::Parameter;
using sharding::Placement;
using sharding::Role;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void add_bias_gradient(Parameter& bias, const at::Tensor& grad_output) {  // grad_output [T, out]
  bias.main_grad.add_(at::sum(grad_output, {0}, /*keepdim=*/false, at::kFloat));
}

class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, Parameter* weight,
                            Parameter* bias) {
    ctx->save_for_backward({input});
    ctx->saved_data["weight"] = saved_pointer(weight);
    ctx->saved_data["bias"] = saved_pointer(bias);
    const at::Tensor rows = input.reshape({-1, input.size(-1)});  // [T, in]
    const at::Tensor transposed = weight->data.t();
    at::Tensor output =
        bias ? at::addmm(bias->data, rows, transposed) : at::mm(rows, transposed);  // [T, out]
    std::vector<int64_t> shape = input.sizes().vec();
    shape.back() = output.size(-1);
    // Not view(): the caller may sum the output in place, which autograd refuses on a view that a
    // custom Function returned.
    return at::_unsafe_view(output, shape);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor input = ctx->get_saved_variables()[0];
    Parameter& weight = *pointer_from<Parameter>(ctx->saved_data["weight"]);
    Parameter* bias = pointer_from<Parameter>(ctx->saved_data["bias"]);
    const at::Tensor grad_rows = grads[0].contiguous().view({-1, weight.shape[0]});  // [T, out]
    const at::Tensor input_rows = input.reshape({-1, weight.shape[1]});              // [T, in]
    at::Tensor grad_input = at::_unsafe_view(at::mm(grad_rows, weight.data), input.sizes());
    kernels::accumulate_weight_gradient(weight.main_grad, grad_rows, input_rows);
    if (bias) add_bias_gradient(*bias, grad_rows);
    return {grad_input, {}, {}};
  }
};

class AddBias : public torch::autograd::Function<AddBias> {
 public:
  static at::Tensor forward(AutogradContext* ctx, at::Tensor input, Parameter* bias) {
    ctx->mark_dirty({input});
    ctx->saved_data["bias"] = saved_pointer(bias);
    return input.add_(bias->data);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    Parameter& bias = *pointer_from<Parameter>(ctx->saved_data["bias"]);
    add_bias_gradient(bias, grads[0].reshape({-1, bias.shape[0]}));
    return {grads[0], {}};
  }
};

// One packed tensor of a column-parallel linear: the weight [out, in] or the bias [out].
void declare_packed(Parameter& parameter, const ColumnParallelLinear::Options& options,
                    const std::string& suffix, const std::vector<int64_t>& inner, Init init,
                    const comm::Communicator& tp) {
  int64_t inner_numel = 1;
  for (const int64_t size : inner) inner_numel *= size;
  int64_t rows = 0;
  for (const ColumnParallelLinear::Output& output : options.outputs) {
    const std::string name = output.name + suffix;
    const Range range = even_range(output.features, tp, name);
    std::vector<int64_t> global_shape = {output.features};
    global_shape.insert(global_shape.end(), inner.begin(), inner.end());
    parameter.slices.push_back(
        {.spec = sharding::slice_of(name, global_shape, /*dim=*/0, range.begin, range.end),
         .offset = rows * inner_numel,
         .owned = true,
         .init = init});
    rows += range.end - range.begin;
  }
  parameter.name = options.name + suffix;
  parameter.shape = {rows};
  parameter.shape.insert(parameter.shape.end(), inner.begin(), inner.end());
  parameter.role = Role::column_parallel;
  parameter.placement = Placement::tp_sharded;
}

std::vector<Parameter*> weight_and_bias(Parameter& weight, Parameter* bias) {
  std::vector<Parameter*> parameters = {&weight};
  if (bias) parameters.push_back(bias);
  return parameters;
}

}  // namespace

Range even_range(int64_t features, const comm::Communicator& tp, const std::string& what) {
  if (features % tp.size() != 0) {
    throw InternalError(
        problem(cat(what, " has ", features, " features, to be cut into ", tp.size(), " slices"))
            .must("divide by the size of the tp axis")
            .remedy("check_tp_size tells so before a model is built."));
  }
  const int64_t local = features / tp.size();
  return {.begin = tp.rank() * local, .end = (tp.rank() + 1) * local};
}

void declare_replicated(Parameter& parameter, std::string name, std::vector<int64_t> shape,
                        Init init, const comm::Communicator& tp) {
  parameter.name = name;
  parameter.shape = shape;
  parameter.role = Role::replicated;
  parameter.placement = Placement::tp_replicated;
  parameter.slices.push_back({.spec = sharding::whole_tensor(std::move(name), std::move(shape)),
                              .offset = 0,
                              .owned = tp.rank() == 0,
                              .init = init});
}

at::Tensor local_linear(const at::Tensor& input, Parameter& weight, Parameter* bias) {
  return LinearFunction::apply(input, &weight, bias);
}

ColumnParallelLinear::ColumnParallelLinear(const Options& options, comm::Communicator& tp)
    : tp_(tp) {
  declare_packed(weight_, options, ".weight", {options.in_features},
                 {.kind = Init::Kind::normal, .std = options.init_std}, tp);
  if (options.bias == Bias::none) return;
  bias_ = std::make_unique<Parameter>();
  declare_packed(*bias_, options, ".bias", {}, {.kind = Init::Kind::zeros}, tp);
}

at::Tensor ColumnParallelLinear::forward(const at::Tensor& x) {  // x [.., in]
  return local_linear(copy_to_region(x, tp_), weight_, bias_.get());
}

std::vector<Parameter*> ColumnParallelLinear::parameters() {
  return weight_and_bias(weight_, bias_.get());
}

RowParallelLinear::RowParallelLinear(const Options& options, comm::Communicator& tp) : tp_(tp) {
  const std::string name = options.name + ".weight";
  const Range range = even_range(options.in_features, tp, name);
  weight_.name = name;
  weight_.shape = {options.out_features, range.end - range.begin};
  weight_.role = Role::row_parallel;
  weight_.placement = Placement::tp_sharded;
  weight_.slices.push_back(
      {.spec = sharding::slice_of(name, {options.out_features, options.in_features}, /*dim=*/1,
                                  range.begin, range.end),
       .offset = 0,
       .owned = true,
       .init = {.kind = Init::Kind::normal, .std = options.init_std}});
  if (options.bias == Bias::none) return;
  bias_ = std::make_unique<Parameter>();
  declare_replicated(*bias_, options.name + ".bias", {options.out_features},
                     {.kind = Init::Kind::zeros}, tp);
}

at::Tensor RowParallelLinear::forward(const at::Tensor& x) {  // x [.., in/tp]
  // The bias is added after the sum: added before, it would count tp times.
  const at::Tensor output =
      reduce_from_region(local_linear(x, weight_, nullptr), tp_);  // [.., out]
  if (!bias_) return output;
  return AddBias::apply(output, bias_.get());
}

std::vector<Parameter*> RowParallelLinear::parameters() {
  return weight_and_bias(weight_, bias_.get());
}

}  // namespace tptrain::tensor_parallel
