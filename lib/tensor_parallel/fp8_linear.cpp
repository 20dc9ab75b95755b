#include "tensor_parallel/fp8_linear.h"

#include <ATen/ATen.h>

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

// rows [T, K] times matrix [N, K]^T, [S, B, N] of the shape of x.
at::Tensor multiply(const at::Tensor& x, const Fp8Matrix& rows, const Fp8Operand& matrix,
                    Fp8Sums sums, const at::Tensor& bias) {
  at::Tensor out = at::empty({rows.rows.size(0), matrix.matrix.size(0)}, x.options());
  kernels::fp8_product_out(out, {.matrix = rows.rows, .scale = rows.scale}, matrix, sums, bias);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = out.size(1);
  return out.view(shape);
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

bool Fp8Linear::takes(const parameters::Parameter& weight) {
  return weight.shape[0] % kernels::kFp8Multiple == 0 &&
         weight.shape[1] % kernels::kFp8Multiple == 0;
}

Fp8Matrix Fp8Linear::cast(Fp8Observer::Of of, const at::Tensor& values, Fp8Form form,
                          const at::Tensor& scale, const at::Tensor& amax) const {
  const Fp8 type = of == Fp8Observer::Of::gradient ? Fp8::e5m2 : Fp8::e4m3;
  Fp8Matrix result = kernels::to_fp8(values, type, form, scale, amax);
  if (settings_.observer != nullptr) settings_.observer->cast(weight_, of, values, result);
  return result;
}

Fp8Matrix Fp8Linear::cast_input(const at::Tensor& x, LinearInput* input) const {
  const bool both = input != nullptr && input->keep_columns;
  Fp8Matrix result = cast(Fp8Observer::Of::input, rows_of(x), both ? Fp8Form::both : Fp8Form::rows,
                          {}, input != nullptr ? input->cast.amax : at::Tensor());
  if (input != nullptr)
    input->cast = {.rows = {}, .columns = result.columns, .scale = result.scale};
  return result;
}

Fp8Matrix Fp8Linear::cast_weight(Fp8Form form) const {
  return cast(Fp8Observer::Of::weight, weight_.data, form, {}, weight_.amax);
}

const Fp8Matrix& Fp8Linear::kept_weight() {
  if (kept_version_ == settings_.weights_version) return kept_weight_;
  if (kept_version_) {
    // In the memory of before: a captured graph holds its address.
    kernels::to_fp8_out(kept_weight_, weight_.data, Fp8::e4m3, weight_.amax);
    if (settings_.observer != nullptr)
      settings_.observer->cast(weight_, Fp8Observer::Of::weight, weight_.data, kept_weight_);
  } else {
    kept_weight_ = cast_weight(Fp8Form::both);
  }
  kept_version_ = settings_.weights_version;
  return kept_weight_;
}

Fp8Matrix Fp8Linear::weight_rows() {
  return settings_.keep_weights ? kept_weight() : cast_weight(Fp8Form::rows);
}
Fp8Matrix Fp8Linear::weight_columns() {
  return settings_.keep_weights ? kept_weight() : cast_weight(Fp8Form::columns);
}

at::Tensor Fp8Linear::forward(const at::Tensor& x, const parameters::Parameter* bias,
                              LinearInput* input) {
  const Fp8Matrix weight = weight_rows();
  return multiply(x, cast_input(x, input), {.matrix = weight.rows, .scale = weight.scale},
                  Fp8Sums::fast, data_of(bias));
}

ReducedSequence Fp8Linear::forward_reduced(const at::Tensor& x, const parameters::Parameter* bias,
                                           const SequenceRegion& region, LinearInput* input) {
  const Fp8Matrix weight = weight_rows();
  return multiply_reduced(x, cast_input(x, input), {.matrix = weight.rows, .scale = weight.scale},
                          Fp8Sums::fast, data_of(bias), region);
}

at::Tensor Fp8Linear::input_gradient(const at::Tensor& grad_output, Fp8Matrix& grad) {
  const Fp8Matrix weight = weight_columns();
  grad = cast(Fp8Observer::Of::gradient, rows_of(grad_output), Fp8Form::both, {}, grad.amax);
  at::Tensor result = multiply(grad_output, grad, {.matrix = weight.columns, .scale = weight.scale},
                               Fp8Sums::split, {});
  grad.rows.reset();
  return result;
}

ReducedSequence Fp8Linear::input_gradient_reduced(const at::Tensor& grad_output,
                                                  const SequenceRegion& region, Fp8Matrix& grad) {
  const Fp8Matrix weight = weight_columns();
  grad = cast(Fp8Observer::Of::gradient, rows_of(grad_output), Fp8Form::both, {}, grad.amax);
  ReducedSequence result =
      multiply_reduced(grad_output, grad, {.matrix = weight.columns, .scale = weight.scale},
                       Fp8Sums::split, {}, region);
  grad.rows.reset();
  return result;
}

void Fp8Linear::weight_gradient(const Fp8Matrix& grad, const at::Tensor& x,
                                const LinearInput& input) {
  if (!weight_.trains) return;
  const Fp8Matrix cast = input.has_columns() ? input.cast
                                             : kernels::to_fp8(rows_of(x), Fp8::e4m3,
                                                               Fp8Form::columns, input.cast.scale);
  kernels::fp8_product_out(weight_.main_grad, {.matrix = grad.columns, .scale = grad.scale},
                           {.matrix = cast.columns, .scale = cast.scale}, Fp8Sums::split, {},
                           accumulation_of(weight_));
}

}  // namespace tptrain::tensor_parallel
