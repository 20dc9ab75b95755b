#include "tensor_parallel/parallel_linear.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "tensor_parallel/rows.h"

namespace tptrain::tensor_parallel {

namespace {

using parameters::Parameter;
using parameters::Placement;
using parameters::Role;
using sharding::Init;

at::Tensor with_last(at::Tensor rows, const at::Tensor& like) {
  std::vector<int64_t> shape = like.sizes().vec();
  shape.back() = rows.size(-1);
  return rows.view(shape);
}

// output = x times matrix [in, out] (+ bias), all of [.., in] and [.., out].
void multiply(const at::Tensor& output, const at::Tensor& x, const at::Tensor& matrix,
              const Parameter* bias) {
  at::Tensor rows = rows_of(output);
  kernels::product_out(rows, rows_of(x), matrix, data_of(bias));
}

// The same, added to what an adapter has left in output.
void add_product(const at::Tensor& output, const at::Tensor& x, const at::Tensor& matrix) {
  at::Tensor rows = rows_of(output);
  kernels::scaled_product_out(rows, rows_of(x), matrix, /*factor=*/1.0, kernels::Accumulate::add);
}

// Sum over tp of x [S, B, in] times matrix [in, out] (+ bias).
ReducedSequence product_reduced(const at::Tensor& x, const at::Tensor& matrix,
                                const Parameter* bias, const SequenceRegion& region) {
  return region.start_reduce(x.size(1), matrix.size(1), x.options(),
                             [&](int64_t first, const at::Tensor& rows) {
                               multiply(rows, x.narrow(0, first, rows.size(0)), matrix, bias);
                             });
}

void add_bias_gradient(Parameter& bias, const at::Tensor& grad_output) {
  if (!bias.trains) return;
  kernels::accumulate_bias_gradient(bias.main_grad, grad_output);
}

// One packed tensor of a column-parallel linear: the weight [out, in] or the bias [out].
void declare_packed(Parameter& parameter, const ColumnParallelLinear::Options& options,
                    const std::string& suffix, const std::vector<int64_t>& inner, Init init) {
  int64_t inner_numel = 1;
  for (const int64_t size : inner) inner_numel *= size;
  int64_t rows = 0;
  for (const ColumnParallelLinear::Output& output : options.outputs) {
    std::vector<int64_t> global_shape = {output.features};
    global_shape.insert(global_shape.end(), inner.begin(), inner.end());
    parameter.slices.push_back(
        {.spec = sharding::slice_of(output.name + suffix, global_shape, /*dim=*/0,
                                    output.local.begin, output.local.end),
         .offset = rows * inner_numel,
         .owned = output.owned,
         .init = init,
         .copies = output.copies});
    rows += output.local.size();
  }
  parameter.name = options.name + suffix;
  parameter.shape = {rows};
  parameter.shape.insert(parameter.shape.end(), inner.begin(), inner.end());
  parameter.role = Role::column_parallel;
  parameter.placement = Placement::tp_sharded;
}

std::unique_ptr<Fp8Linear> fp8_of(const Fp8Settings* settings, Fp8Cut cut, Parameter& weight) {
  if (settings == nullptr || !Fp8Linear::takes(weight.shape[0], weight.shape[1])) return nullptr;
  return std::make_unique<Fp8Linear>(*settings, cut, weight);
}

// Outputs of one name share their A: they are one linear in the model's files.
std::unique_ptr<LowRankAdapter> adapter_of(const ColumnParallelLinear::Options& options,
                                           const comm::Communicator& tp) {
  std::vector<LowRankAdapter::Site> sites;
  int64_t column = 0;
  for (const auto& [name, features, local, owned, copies, adapter] : options.outputs) {
    if (!adapter.empty()) {
      if (sites.empty() || sites.back().name != adapter)
        sites.push_back({.name = adapter, .outputs = {}, .first_column = column});
      sites.back().outputs.push_back({name, features, local, owned, copies});
    }
    column += local.size();
  }
  if (sites.empty()) return nullptr;
  return std::make_unique<LowRankAdapter>(
      LowRankAdapter::Options{.name = options.name,
                              .sites = std::move(sites),
                              .in_features = options.in_features,
                              .local_in = {.begin = 0, .end = options.in_features},
                              .local_out = column,
                              .low_rank = options.low_rank},
      tp);
}

std::unique_ptr<LowRankAdapter> adapter_of(const RowParallelLinear::Options& options,
                                           const comm::Communicator& tp) {
  if (options.adapter.empty()) return nullptr;
  return std::make_unique<LowRankAdapter>(
      LowRankAdapter::Options{
          .name = options.name,
          .sites = {{.name = options.adapter,
                     .outputs = {{.name = options.name,
                                  .features = options.out_features,
                                  .local = {.begin = 0, .end = options.out_features}}}}},
          .in_features = options.in_features,
          .local_in = options.local,
          .local_out = options.out_features,
          .low_rank = options.low_rank},
      tp);
}

void refuse_both(const Fp8Linear* fp8, const LowRankAdapter* adapter, const std::string& name) {
  if (fp8 == nullptr || adapter == nullptr) return;
  throw InternalError(problem(cat(name, " has an adapter and runs in FP8"))
                          .must("be one of both")
                          .remedy("The check of train.fp8 tells a user so."));
}

kernels::Dropout dropout_of(const LinearInput* input) {
  return input != nullptr ? input->adapter_dropout : kernels::Dropout{};
}

// x W^T (+ bias) and the adapter's term, of a plain tensor of all rows, without dropout.
at::Tensor adapted_linear(const at::Tensor& x, const Parameter& weight, const Parameter* bias,
                          const LowRankAdapter* adapter) {
  if (adapter == nullptr) return linear(x, weight, bias);
  at::Tensor output = at::empty({x.size(0), x.size(1), weight.shape[0]}, x.options());
  const at::Tensor down = adapter->empty_down(x);
  adapter->forward(output, down, x, data_of(bias), /*first=*/0, {});
  add_product(output, x, weight.values().t());
  return output;
}

void add_adapter_gradients(LowRankAdapter& adapter, const at::Tensor& grad_output,
                           const at::Tensor& x, const LinearGradient& grad,
                           const LinearInput& input) {
  const at::Tensor down =
      input.adapter_down.defined() ? input.adapter_down : adapter.down_of(x, input.adapter_dropout);
  const at::Tensor grad_down =
      grad.adapter_down.defined() ? grad.adapter_down : adapter.grad_down_of(grad_output);
  adapter.weight_gradient(grad_output, x, down, grad_down, input.adapter_dropout);
}

std::vector<Parameter*> all_of(Parameter& weight, Parameter* bias, LowRankAdapter* adapter) {
  std::vector<Parameter*> parameters = {&weight};
  if (bias) parameters.push_back(bias);
  if (adapter) std::ranges::copy(adapter->parameters(), std::back_inserter(parameters));
  return parameters;
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const Parameter& weight, const Parameter* bias) {
  return with_last(kernels::product(rows_of(x), weight.values().t(), data_of(bias)), x);
}

at::Tensor linear(GatheredSequence& x, const Parameter& weight, const Parameter* bias) {
  at::Tensor output = at::empty({x.length(), x.batch(), weight.shape[0]}, x.options());
  const at::Tensor transposed = weight.values().t();
  x.for_each_part([&](int64_t first, const at::Tensor& rows) {
    multiply(output.narrow(0, first, rows.size(0)), rows, transposed, bias);
  });
  return output;
}

at::Tensor linear_input_gradient(GatheredSequence& grad_output, const Parameter& weight) {
  at::Tensor gradient = at::empty({grad_output.length(), grad_output.batch(), weight.shape[1]},
                                  grad_output.options());
  const at::Tensor values = weight.values();
  grad_output.for_each_part([&](int64_t first, const at::Tensor& rows) {
    multiply(gradient.narrow(0, first, rows.size(0)), rows, values, nullptr);
  });
  return gradient;
}

ReducedSequence linear_reduced(const at::Tensor& x, const Parameter& weight, const Parameter* bias,
                               const SequenceRegion& region) {
  return product_reduced(x, weight.values().t(), bias, region);
}

ReducedSequence linear_input_gradient_reduced(const at::Tensor& grad_output,
                                              const Parameter& weight,
                                              const SequenceRegion& region) {
  return product_reduced(grad_output, weight.values(), nullptr, region);
}

kernels::Accumulate accumulation_of(Parameter& weight) {
  weight.squares.current = false;
  if (weight.gradient_owner == nullptr || !weight.gradient_owner->is_first_write(weight))
    return kernels::Accumulate::add;
  weight.gradient_owner->written(weight);
  return kernels::Accumulate::overwrite;
}

void multiply_weight_gradient(Parameter& weight, at::Tensor& main_grad,
                              const at::Tensor& grad_output, const at::Tensor& x) {
  const kernels::Accumulate accumulate = accumulation_of(weight);
  parameters::GradientSquares& squares = weight.squares;
  if (squares.of_pieces.defined() && accumulate == kernels::Accumulate::overwrite &&
      kernels::weight_gradient_with_squares(main_grad, grad_output, x, squares.of_pieces)) {
    squares.current = true;
    return;
  }
  kernels::accumulate_weight_gradient(main_grad, grad_output, x, accumulate);
}

void linear_weight_gradient(const at::Tensor& grad_output, const at::Tensor& x, Parameter& weight,
                            Parameter* bias) {
  if (weight.trains)
    multiply_weight_gradient(weight, weight.main_grad, rows_of(grad_output), rows_of(x));
  if (bias) add_bias_gradient(*bias, grad_output);
}

at::Tensor gradient_or_scratch(Parameter& parameter) {
  if (parameter.trains) return parameter.main_grad;
  return at::zeros(parameter.shape, parameter.data.options().dtype(at::kFloat));
}

void declare_replicated(Parameter& parameter, std::string name, std::vector<int64_t> shape,
                        Init init, parameters::TpGradient gradient, const comm::Communicator& tp) {
  parameter.name = name;
  parameter.shape = shape;
  parameter.role = Role::replicated;
  parameter.placement = Placement::tp_replicated;
  parameter.tp_gradient = tp.size() > 1 ? gradient : parameters::TpGradient::whole;
  parameter.slices.push_back({.spec = sharding::whole_tensor(std::move(name), std::move(shape)),
                              .offset = 0,
                              .owned = tp.rank() == 0,
                              .init = init});
}

ColumnParallelLinear::ColumnParallelLinear(const Options& options, const comm::Communicator& tp)
    : adapter_(adapter_of(options, tp)) {
  declare_packed(weight_, options, ".weight", {options.in_features},
                 {.kind = Init::Kind::normal, .std = options.init_std});
  fp8_ = fp8_of(options.fp8, Fp8Cut::columns, weight_);
  refuse_both(fp8_.get(), adapter_.get(), options.name);
  if (options.bias == Bias::none) return;
  bias_ = std::make_unique<Parameter>();
  declare_packed(*bias_, options, ".bias", {}, {.kind = Init::Kind::zeros});
}

at::Tensor ColumnParallelLinear::forward(const at::Tensor& x) const {
  return adapted_linear(x, weight_, bias_.get(), adapter_.get());
}

at::Tensor ColumnParallelLinear::forward(GatheredSequence& x, LinearInput* input) const {
  if (fp8_) return fp8_->forward(x, bias_.get(), input);
  if (!adapter_) return linear(x, weight_, bias_.get());
  at::Tensor output = at::empty({x.length(), x.batch(), weight_.shape[0]}, x.options());
  const at::Tensor down = adapter_->empty_down(output);
  const at::Tensor transposed = weight_.values().t();
  x.for_each_part([&](int64_t first, const at::Tensor& rows) {
    const at::Tensor part = output.narrow(0, first, rows.size(0));
    adapter_->forward(part, down.narrow(0, first, rows.size(0)), rows, data_of(bias_.get()), first,
                      dropout_of(input));
    add_product(part, rows, transposed);
  });
  if (input != nullptr) input->adapter_down = down;
  return output;
}

ReducedSequence ColumnParallelLinear::input_gradient(const at::Tensor& grad_output,
                                                     const SequenceRegion& region,
                                                     const LinearInput& input,
                                                     LinearGradient& grad) const {
  if (fp8_) return fp8_->input_gradient_reduced(grad_output, region, grad.cast);
  if (!adapter_) return linear_input_gradient_reduced(grad_output, weight_, region);
  const int64_t batch = grad_output.size(1);
  grad.adapter_down = adapter_->empty_down(grad_output);
  const at::Tensor values = weight_.values();
  return region.start_reduce(
      batch, weight_.shape[1], grad_output.options(), [&](int64_t first, const at::Tensor& rows) {
        const at::Tensor part = grad_output.narrow(0, first, rows.size(0));
        adapter_->input_gradient(rows, grad.adapter_down.narrow(0, first, rows.size(0)), part,
                                 first, input.adapter_dropout);
        add_product(rows, part, values);
      });
}

void ColumnParallelLinear::weight_gradient(const at::Tensor& grad_output, const at::Tensor& x,
                                           const LinearGradient& grad, const LinearInput& input) {
  Parameter* bias = grad.bias_added ? nullptr : bias_.get();
  if (fp8_) {
    fp8_->weight_gradient(grad.cast, x, input);
    if (bias) add_bias_gradient(*bias, grad_output);
    return;
  }
  linear_weight_gradient(grad_output, x, weight_, bias);
  if (adapter_) add_adapter_gradients(*adapter_, grad_output, x, grad, input);
}

std::vector<Parameter*> ColumnParallelLinear::parameters() {
  return all_of(weight_, bias_.get(), adapter_.get());
}

RowParallelLinear::RowParallelLinear(const Options& options, const comm::Communicator& tp)
    : adapter_(adapter_of(options, tp)), adds_bias_(tp.rank() == 0) {
  weight_.name = options.name + ".weight";
  weight_.shape = {options.out_features, options.local.size()};
  weight_.role = Role::row_parallel;
  weight_.placement = Placement::tp_sharded;
  weight_.slices.push_back(
      {.spec = sharding::slice_of(weight_.name, {options.out_features, options.in_features},
                                  /*dim=*/1, options.local.begin, options.local.end),
       .offset = 0,
       .owned = true,
       .init = {.kind = Init::Kind::normal, .std = options.init_std}});
  fp8_ = fp8_of(options.fp8, Fp8Cut::rows, weight_);
  refuse_both(fp8_.get(), adapter_.get(), options.name);
  if (options.bias == Bias::none) return;
  bias_ = std::make_unique<Parameter>();
  declare_replicated(*bias_, options.name + ".bias", {options.out_features},
                     {.kind = Init::Kind::zeros}, options.bias_gradient, tp);
}

at::Tensor RowParallelLinear::forward(const at::Tensor& x) const {
  return adapted_linear(x, weight_, added_bias(), adapter_.get());
}

ReducedSequence RowParallelLinear::forward(const at::Tensor& x, const SequenceRegion& region,
                                           LinearInput* input) const {
  if (fp8_) return fp8_->forward_reduced(x, added_bias(), region, input);
  if (!adapter_) return linear_reduced(x, weight_, added_bias(), region);
  const at::Tensor down = adapter_->empty_down(x);
  const at::Tensor transposed = weight_.values().t();
  if (input != nullptr) input->adapter_down = down;
  return region.start_reduce(x.size(1), weight_.shape[0], x.options(),
                             [&](int64_t first, const at::Tensor& rows) {
                               const at::Tensor part = x.narrow(0, first, rows.size(0));
                               adapter_->forward(rows, down.narrow(0, first, rows.size(0)), part,
                                                 data_of(added_bias()), first, dropout_of(input));
                               add_product(rows, part, transposed);
                             });
}

at::Tensor RowParallelLinear::input_gradient(GatheredSequence& grad_output,
                                             const LinearInput& input, LinearGradient& grad) const {
  if (fp8_) return fp8_->input_gradient(grad_output, grad.cast);
  if (!adapter_) return linear_input_gradient(grad_output, weight_);
  const int64_t length = grad_output.length(), batch = grad_output.batch();
  at::Tensor gradient = at::empty({length, batch, weight_.shape[1]}, grad_output.options());
  grad.adapter_down = adapter_->empty_down(gradient);
  const at::Tensor values = weight_.values();
  grad_output.for_each_part([&](int64_t first, const at::Tensor& rows) {
    const at::Tensor part = gradient.narrow(0, first, rows.size(0));
    adapter_->input_gradient(part, grad.adapter_down.narrow(0, first, rows.size(0)), rows, first,
                             input.adapter_dropout);
    add_product(part, rows, values);
  });
  return gradient;
}

void RowParallelLinear::weight_gradient(const at::Tensor& grad_output, const at::Tensor& x,
                                        const LinearGradient& grad, const LinearInput& input) {
  if (fp8_) return fp8_->weight_gradient(grad.cast, x, input);
  linear_weight_gradient(grad_output, x, weight_, nullptr);
  if (adapter_) add_adapter_gradients(*adapter_, grad_output, x, grad, input);
}

void RowParallelLinear::bias_backward(const at::Tensor& grad_sum, const at::Tensor& column_sums) {
  if (!bias_ || !bias_->trains) return;
  if (!column_sums.defined()) return add_bias_gradient(*bias_, grad_sum);
  bias_->main_grad.add_(column_sums);
}

std::vector<Parameter*> RowParallelLinear::parameters() {
  return all_of(weight_, bias_.get(), adapter_.get());
}

}  // namespace tptrain::tensor_parallel
