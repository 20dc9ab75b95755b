#include "tensor_parallel/low_rank_adapter.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "tensor_parallel/parallel_linear.h"

namespace tptrain::tensor_parallel {

namespace {

using kernels::Accumulate;
using parameters::Parameter;
using parameters::Placement;
using parameters::Role;
using parameters::TpGradient;
using sharding::Init;

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }  // [T, X]

// Bound of PyTorch's default for the weight of a linear, kaiming_uniform with a = sqrt(5), which
// PEFT begins with: sqrt(6 / ((1 + 5) * in)).
double bound_of_down(int64_t in_features) {
  return 1.0 / std::sqrt(static_cast<double>(in_features));
}

}  // namespace

LowRankAdapter::LowRankAdapter(const Options& options, const comm::Communicator& tp)
    : low_rank_(options.low_rank), first_input_(options.local_in.begin) {
  if (low_rank_.rank < 1 || options.sites.empty()) {
    throw InternalError(problem(cat("an adapter of rank ", low_rank_.rank, " for ",
                                    options.sites.size(), " linears"))
                            .must("have both"));
  }
  const bool row_parallel = options.local_in.size() < options.in_features;
  declare_down(options, tp, row_parallel);
  for (const Site& site : options.sites) declare_up(options, site, tp, row_parallel);
}

void LowRankAdapter::declare_down(const Options& options, const comm::Communicator& tp,
                                  bool row_parallel) {
  const int64_t rank = low_rank_.rank;
  const int64_t local_in = options.local_in.size();
  down_.name = options.name + ".lora_A.weight";
  down_.shape = {static_cast<int64_t>(options.sites.size()) * rank, local_in};
  down_.adapter = true;
  down_.role = row_parallel ? Role::row_parallel : Role::replicated;
  down_.placement = row_parallel ? Placement::tp_sharded : Placement::tp_replicated;
  if (!row_parallel && tp.size() > 1) down_.tp_gradient = TpGradient::partial;
  int64_t offset = 0;
  for (const Site& site : options.sites) {
    const std::string name = site.name + ".lora_A.weight";
    const std::vector<int64_t> shape = {rank, options.in_features};
    down_.slices.push_back(
        {.spec = row_parallel ? sharding::slice_of(name, shape, /*dim=*/1, options.local_in.begin,
                                                   options.local_in.end)
                              : sharding::whole_tensor(name, shape),
         .offset = offset,
         .owned = row_parallel || tp.rank() == 0,
         .init = {.kind = Init::Kind::uniform, .bound = bound_of_down(options.in_features)}});
    offset += rank * local_in;
  }
}

void LowRankAdapter::declare_up(const Options& options, const Site& site,
                                const comm::Communicator& tp, bool row_parallel) {
  const int64_t rank = low_rank_.rank;
  auto up = std::make_unique<Up>();
  up->first_column = site.first_column;
  Parameter& weight = up->weight;
  weight.name = site.name + ".lora_B.weight";
  weight.adapter = true;
  weight.role = row_parallel ? Role::replicated : Role::column_parallel;
  weight.placement = row_parallel ? Placement::tp_replicated : Placement::tp_sharded;
  if (row_parallel) weight.tp_gradient = TpGradient::partial;
  int64_t rows = 0;
  for (const Output& output : site.outputs) {
    const std::string name = output.name + ".lora_B.weight";
    const std::vector<int64_t> shape = {output.features, rank};
    weight.slices.push_back({.spec = row_parallel
                                         ? sharding::whole_tensor(name, shape)
                                         : sharding::slice_of(name, shape, /*dim=*/0,
                                                              output.local.begin, output.local.end),
                             .offset = rows * rank,
                             .owned = row_parallel ? tp.rank() == 0 : output.owned,
                             .init = {.kind = Init::Kind::zeros},
                             .copies = row_parallel ? parameters::TpCopies{} : output.copies});
    rows += output.local.size();
  }
  weight.shape = {rows, rank};
  ups_.push_back(std::move(up));
}

at::Tensor LowRankAdapter::columns_of_site(const at::Tensor& rows, size_t index) const {
  return rows.narrow(1, static_cast<int64_t>(index) * low_rank_.rank, low_rank_.rank);
}

void LowRankAdapter::drop_(at::Tensor& x, int64_t first, const kernels::Dropout& dropout) const {
  kernels::Dropout here = dropout;
  here.first_element = first_input_;
  kernels::dropout_(x, here, first);
}

at::Tensor LowRankAdapter::dropped(const at::Tensor& x, int64_t first,
                                   const kernels::Dropout& dropout) const {
  if (dropout.probability == 0) return x;
  at::Tensor copy = x.clone(at::MemoryFormat::Contiguous);
  drop_(copy, first, dropout);
  return copy;
}

at::Tensor LowRankAdapter::empty_down(int64_t positions, int64_t batch,
                                      const at::TensorOptions& options) const {
  return at::empty({positions, batch, down_.shape[0]}, options);
}

void LowRankAdapter::forward(const at::Tensor& y, const at::Tensor& down, const at::Tensor& x,
                             int64_t first, const kernels::Dropout& dropout) const {
  at::Tensor low = rows_of(down);
  kernels::scaled_product_out(low, rows_of(dropped(x, first, dropout)), down_.data.t(),
                              low_rank_.scale, Accumulate::overwrite);
  const at::Tensor output = rows_of(y);
  for (size_t i = 0; i < ups_.size(); ++i) {
    const at::Tensor& b = ups_[i]->weight.data;
    at::Tensor columns = output.narrow(1, ups_[i]->first_column, b.size(0));
    kernels::scaled_product_out(columns, columns_of_site(low, i), b.t(), 1.0, Accumulate::add);
  }
}

at::Tensor LowRankAdapter::down_of(const at::Tensor& x, const kernels::Dropout& dropout) const {
  at::Tensor down = empty_down(x.size(0), x.size(1), x.options());
  at::Tensor low = rows_of(down);
  kernels::scaled_product_out(low, rows_of(dropped(x, /*first=*/0, dropout)), down_.data.t(),
                              low_rank_.scale, Accumulate::overwrite);
  return down;
}

void LowRankAdapter::multiply_by_up(const at::Tensor& grad_down,
                                    const at::Tensor& grad_output) const {
  const at::Tensor low = rows_of(grad_down);
  const at::Tensor grad = rows_of(grad_output);
  for (size_t i = 0; i < ups_.size(); ++i) {
    const at::Tensor& b = ups_[i]->weight.data;
    at::Tensor columns = columns_of_site(low, i);
    kernels::scaled_product_out(columns, grad.narrow(1, ups_[i]->first_column, b.size(0)), b,
                                low_rank_.scale, Accumulate::overwrite);
  }
}

at::Tensor LowRankAdapter::grad_down_of(const at::Tensor& grad_output) const {
  at::Tensor grad_down =
      empty_down(grad_output.size(0), grad_output.size(1), grad_output.options());
  multiply_by_up(grad_down, grad_output);
  return grad_down;
}

void LowRankAdapter::input_gradient(const at::Tensor& grad_input, const at::Tensor& grad_down,
                                    const at::Tensor& grad_output, int64_t first,
                                    const kernels::Dropout& dropout) const {
  multiply_by_up(grad_down, grad_output);
  const at::Tensor low = rows_of(grad_down);
  at::Tensor into = rows_of(grad_input);
  if (dropout.probability == 0) {
    kernels::scaled_product_out(into, low, down_.data, 1.0, Accumulate::add);
    return;
  }
  // What was dropped of x has no part in y: its gradient is dropped alike.
  at::Tensor term = at::empty(grad_input.sizes(), grad_input.options());
  at::Tensor rows = rows_of(term);
  kernels::scaled_product_out(rows, low, down_.data, 1.0, Accumulate::overwrite);
  drop_(term, first, dropout);
  into.add_(rows);
}

void LowRankAdapter::weight_gradient(const at::Tensor& grad_output, const at::Tensor& x,
                                     const at::Tensor& down, const at::Tensor& grad_down,
                                     const kernels::Dropout& dropout) {
  if (down_.trains) {
    kernels::accumulate_weight_gradient(down_.main_grad, rows_of(grad_down),
                                        rows_of(dropped(x, /*first=*/0, dropout)),
                                        accumulation_of(down_));
  }
  const at::Tensor grad = rows_of(grad_output);
  const at::Tensor low = rows_of(down);
  for (size_t i = 0; i < ups_.size(); ++i) {
    Parameter& b = ups_[i]->weight;
    if (!b.trains) continue;
    kernels::accumulate_weight_gradient(b.main_grad,
                                        grad.narrow(1, ups_[i]->first_column, b.shape[0]),
                                        columns_of_site(low, i), accumulation_of(b));
  }
}

std::vector<Parameter*> LowRankAdapter::parameters() {
  std::vector<Parameter*> all = {&down_};
  for (const auto& up : ups_) all.push_back(&up->weight);
  return all;
}

}  // namespace tptrain::tensor_parallel
