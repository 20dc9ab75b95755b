#include "tensor_parallel/fp8_linear.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/rows.h"

namespace tptrain::tensor_parallel {

namespace {

using kernels::Fp8;
using kernels::Fp8Form;
using kernels::Fp8Matrix;
using kernels::Fp8Operand;
using kernels::Fp8Sums;

at::Tensor no_amax(const at::Tensor& like) {
  return at::zeros({kernels::kFp8AmaxWords}, like.options().dtype(at::kInt));
}

// In place, of bits: what is not negative has them in its order.
void max_over(comm::Communicator& tp, at::Tensor& amax) {
  at::Tensor numbers = amax.view(at::kFloat);
  tp.all_reduce(numbers, comm::ReduceOp::max);
}

// rows [T, K] times matrix [N, K]^T, [S, B, N] of the shape of x.
at::Tensor multiply(const at::Tensor& x, const Fp8Matrix& rows, const Fp8Operand& matrix,
                    Fp8Sums sums, const at::Tensor& bias) {
  at::Tensor out = at::empty({rows.rows.size(0), matrix.matrix.size(0)}, x.options());
  kernels::fp8_product_out(out, {.matrix = rows.rows, .scale = rows.scale}, matrix, sums, bias);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = out.size(1);
  return out.view(shape);
}

// The same of rows that are on their way, as they come.
at::Tensor multiply(GatheredSequence& x, const Fp8Operand& matrix, Fp8Sums sums,
                    const at::Tensor& bias) {
  at::Tensor out =
      at::empty({x.length(), x.batch(), matrix.matrix.size(0)}, x.options().dtype(at::kBFloat16));
  x.for_each_part([&](int64_t first, const at::Tensor& part) {
    at::Tensor own = rows_of(out.narrow(0, first, part.size(0)));
    const at::Tensor rows = rows_of(part);
    kernels::fp8_product_out(own, {.matrix = rows, .scale = x.scale()}, matrix, sums, bias);
  });
  return out;
}

// The same, summed over tp.
ReducedSequence multiply_reduced(const at::Tensor& x, const Fp8Matrix& rows,
                                 const Fp8Operand& matrix, Fp8Sums sums, const at::Tensor& bias,
                                 const SequenceRegion& region) {
  const int64_t batch = x.size(1);
  return region.start_reduce(
      batch, matrix.matrix.size(0), x.options(), [&](int64_t first, const at::Tensor& part) {
        at::Tensor out = rows_of(part);
        const at::Tensor own = rows.rows.narrow(0, first * batch, out.size(0));
        kernels::fp8_product_out(out, {.matrix = own, .scale = rows.scale}, matrix, sums, bias);
      });
}

}  // namespace

bool Fp8Linear::takes(int64_t out, int64_t in) {
  return out % kernels::kFp8Multiple == 0 && in % kernels::kFp8Multiple == 0;
}

Fp8Linear::Fp8Linear(const Fp8Settings& settings, Fp8Cut cut, parameters::Parameter& weight)
    : settings_(settings), cut_(cut), weight_(weight) {
  weight_.wants_amax = true;
}

Fp8Observer::Of Fp8Linear::gathered() const {
  return cut_ == Fp8Cut::columns ? Fp8Observer::Of::input : Fp8Observer::Of::gradient;
}

// `amax` of the own values, where it is known.
at::Tensor Fp8Linear::largest_of_ranks(const at::Tensor& values, at::Tensor amax) const {
  if (!amax.defined()) {
    amax = no_amax(values);
    kernels::raise_amax(amax, values);
  }
  max_over(*settings_.tp, amax);
  return amax;
}

Fp8Matrix Fp8Linear::cast(Fp8Observer::Of of, const at::Tensor& values, Fp8Form form,
                          const at::Tensor& scale, const at::Tensor& amax) const {
  const Fp8 type = of == Fp8Observer::Of::gradient ? Fp8::e5m2 : Fp8::e4m3;
  Fp8Matrix result = kernels::to_fp8(values, type, form, scale, amax);
  if (settings_.observer != nullptr) settings_.observer->cast(weight_, of, values, result);
  return result;
}

GatheredSequence Fp8Linear::start_gather(at::Tensor slice, const SequenceRegion& region,
                                         const at::Tensor& scale) const {
  if (!shares_scales() || !region.sliced()) return region.start_gather(std::move(slice));
  at::Tensor amax;
  // Rows behind the sequence are no part of the tensor.
  if (!scale.defined()) amax = largest_of_ranks(slice.narrow(0, 0, region.counted_rows()), {});
  const Fp8Matrix rows = cast(gathered(), rows_of(slice), Fp8Form::rows, scale, amax);
  return region.start_gather(rows.rows.view(slice.sizes()), rows.scale);
}

Fp8Matrix Fp8Linear::cast_input(const at::Tensor& x, LinearInput* input) const {
  const bool both = input != nullptr && input->keep_columns;
  at::Tensor amax = input != nullptr ? input->cast.amax : at::Tensor();
  if (cut_ == Fp8Cut::rows && shares_scales()) amax = largest_of_ranks(rows_of(x), amax);
  Fp8Matrix result =
      cast(Fp8Observer::Of::input, rows_of(x), both ? Fp8Form::both : Fp8Form::rows, {}, amax);
  if (input != nullptr)
    input->cast = {.rows = {}, .columns = result.columns, .scale = result.scale};
  return result;
}

void Fp8Linear::share_weight_amax(const std::vector<Fp8Linear*>& linears) {
  std::vector<Fp8Linear*> stale;
  std::ranges::copy_if(linears, std::back_inserter(stale), [](const Fp8Linear* linear) {
    return linear->shares_scales() && !linear->weight_.fp8.rows.defined() &&
           linear->amax_version_ != linear->settings_.weights_version;
  });
  if (stale.empty()) return;
  const auto count = static_cast<int64_t>(stale.size());
  at::Tensor found = at::zeros({count}, stale[0]->weight_.data.options().dtype(at::kInt));
  for (int64_t i = 0; i < count; ++i) {
    const parameters::Parameter& weight = stale[static_cast<size_t>(i)]->weight_;
    const at::Tensor amax = found.narrow(0, i, 1);
    if (weight.amax.defined())
      amax.copy_(weight.amax);
    else
      kernels::raise_amax(amax, weight.data);
  }
  max_over(*stale[0]->settings_.tp, found);
  for (int64_t i = 0; i < count; ++i) {
    Fp8Linear& linear = *stale[static_cast<size_t>(i)];
    if (!linear.weight_amax_.defined()) linear.weight_amax_ = at::empty({1}, found.options());
    linear.weight_amax_.copy_(found.narrow(0, i, 1));
    linear.amax_version_ = linear.settings_.weights_version;
  }
}

const Fp8Matrix& Fp8Linear::kept_weight() {
  if (kept_version_ == settings_.weights_version) return kept_weight_;
  if (kept_version_) {
    // In the memory of before: a captured graph holds its address.
    kernels::to_fp8_out(kept_weight_, weight_.data, Fp8::e4m3, amax_of_weight());
    if (settings_.observer != nullptr)
      settings_.observer->cast(weight_, Fp8Observer::Of::weight, weight_.data, kept_weight_);
  } else {
    kept_weight_ = cast_weight(Fp8Form::both);
  }
  kept_version_ = settings_.weights_version;
  return kept_weight_;
}

Fp8Matrix Fp8Linear::cast_weight(Fp8Form form) const {
  return cast(Fp8Observer::Of::weight, weight_.data, form, {}, amax_of_weight());
}

Fp8Matrix Fp8Linear::weight_rows() {
  if (weight_.fp8.rows.defined())
    return {.rows = weight_.fp8.rows, .columns = {}, .scale = weight_.fp8.scale};
  return settings_.keep_weights ? kept_weight() : cast_weight(Fp8Form::rows);
}
Fp8Matrix Fp8Linear::weight_columns() {
  if (weight_.fp8.rows.defined())
    return {
        .rows = {}, .columns = kernels::fp8_columns(weight_.fp8.rows), .scale = weight_.fp8.scale};
  return settings_.keep_weights ? kept_weight() : cast_weight(Fp8Form::columns);
}

at::Tensor Fp8Linear::forward(GatheredSequence& x, const parameters::Parameter* bias,
                              LinearInput* input) {
  const Fp8Matrix weight = weight_rows();
  const Fp8Operand matrix = {.matrix = weight.rows, .scale = weight.scale};
  if (x.scale().defined()) {
    if (input != nullptr) input->cast = {.rows = {}, .columns = {}, .scale = x.scale()};
    return multiply(x, matrix, Fp8Sums::fast, data_of(bias));
  }
  const at::Tensor whole = x.whole();
  return multiply(whole, cast_input(whole, input), matrix, Fp8Sums::fast, data_of(bias));
}

ReducedSequence Fp8Linear::forward_reduced(const at::Tensor& x, const parameters::Parameter* bias,
                                           const SequenceRegion& region, LinearInput* input) {
  const Fp8Matrix weight = weight_rows();
  return multiply_reduced(x, cast_input(x, input), {.matrix = weight.rows, .scale = weight.scale},
                          Fp8Sums::fast, data_of(bias), region);
}

at::Tensor Fp8Linear::input_gradient(GatheredSequence& grad_output, Fp8Matrix& grad) {
  const Fp8Matrix weight = weight_columns();
  const Fp8Operand matrix = {.matrix = weight.columns, .scale = weight.scale};
  if (grad_output.scale().defined()) {
    at::Tensor result = multiply(grad_output, matrix, Fp8Sums::split, {});
    grad = {.rows = {},
            .columns = kernels::fp8_columns(rows_of(grad_output.whole())),
            .scale = grad_output.scale()};
    return result;
  }
  const at::Tensor whole = grad_output.whole();
  grad = cast(Fp8Observer::Of::gradient, rows_of(whole), Fp8Form::both, {}, grad.amax);
  at::Tensor result = multiply(whole, grad, matrix, Fp8Sums::split, {});
  grad.rows.reset();
  return result;
}

ReducedSequence Fp8Linear::input_gradient_reduced(const at::Tensor& grad_output,
                                                  const SequenceRegion& region, Fp8Matrix& grad) {
  const Fp8Matrix weight = weight_columns();
  at::Tensor amax = grad.amax;
  if (shares_scales()) amax = largest_of_ranks(rows_of(grad_output), amax);
  grad = cast(Fp8Observer::Of::gradient, rows_of(grad_output), Fp8Form::both, {}, amax);
  ReducedSequence result =
      multiply_reduced(grad_output, grad, {.matrix = weight.columns, .scale = weight.scale},
                       Fp8Sums::split, {}, region);
  grad.rows.reset();
  return result;
}

void Fp8Linear::weight_gradient(const Fp8Matrix& grad, const at::Tensor& x,
                                const LinearInput& input) {
  if (!weight_.trains) return;
  Fp8Matrix cast = input.cast;
  if (!input.has_columns()) {
    // Where forward was made again without this product, nobody has found the scale.
    at::Tensor amax = cast.scale.defined() ? at::Tensor() : cast.amax;
    if (!cast.scale.defined() && cut_ == Fp8Cut::rows && shares_scales())
      amax = largest_of_ranks(rows_of(x), amax);
    if (x.scalar_type() == at::kFloat8_e4m3fn)
      cast.columns = kernels::fp8_columns(rows_of(x));
    else
      cast = kernels::to_fp8(rows_of(x), Fp8::e4m3, Fp8Form::columns, cast.scale, amax);
  }
  kernels::fp8_product_out(weight_.main_grad, {.matrix = grad.columns, .scale = grad.scale},
                           {.matrix = cast.columns, .scale = cast.scale}, Fp8Sums::split, {},
                           accumulation_of(weight_));
}

}  // namespace tptrain::tensor_parallel
