#include "zero/product_squares.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "kernels/kernels.h"

namespace tptrain::zero {
namespace {

using parameters::Role;

// An adapter's matrices and those of FP8 have products of other kinds; so has a table that is
// looked up.
bool has_such_product(const parameters::Parameter& parameter, const Bucket& bucket, int head) {
  if (parameter.adapter || parameter.wants_amax || bucket.gradient_dtype != at::kFloat)
    return false;
  if (parameter.shape.size() != 2) return false;
  return parameter.role == Role::column_parallel || parameter.role == Role::row_parallel ||
         (parameter.role == Role::vocab_parallel && bucket.block == head);
}

bool counts_whole(const parameters::Parameter& parameter) {
  return std::ranges::all_of(parameter.slices,
                             [](const parameters::NamedSlice& slice) { return slice.owned; });
}

}  // namespace

ProductSquares::ProductSquares(const ParamBuckets& buckets, const GradientReducer& reducer) {
  const at::Device device = buckets.options().device;
  const int head = static_cast<int>(buckets.blocks().size()) - 1;
  for (const Bucket& bucket : buckets.buckets()) {
    for (parameters::Parameter* parameter : bucket.parameters) {
      if (!bucket.trains || !has_such_product(*parameter, bucket, head) ||
          !counts_whole(*parameter) || !reducer.flag_for_norm(*parameter).defined())
        continue;
      const int64_t rows = parameter->shape[0] + parameter->padding_rows;
      if (!kernels::weight_gradient_squares_pay(rows, parameter->shape[1], device)) continue;
      const int64_t pieces = kernels::weight_gradient_squares(rows, parameter->shape[1], device);
      parameter->squares = {
          .of_pieces = at::zeros({pieces}, at::TensorOptions().dtype(at::kDouble).device(device))};
      asked_.push_back({.parameter = parameter, .of_pieces = parameter->squares.of_pieces});
    }
  }
}

ProductSquares::~ProductSquares() {
  for (const Asked& asked : asked_) {
    if (asked.parameter->squares.of_pieces.is_same(asked.of_pieces)) asked.parameter->squares = {};
  }
}

at::Tensor ProductSquares::of(const parameters::Parameter& parameter) const {
  const auto found = std::ranges::find(asked_, &parameter, &Asked::parameter);
  return found == asked_.end() ? at::Tensor() : found->of_pieces;
}

bool ProductSquares::current() const {
  return !asked_.empty() && std::ranges::all_of(asked_, [](const Asked& asked) {
    return asked.parameter->squares.current;
  });
}

}  // namespace tptrain::zero
