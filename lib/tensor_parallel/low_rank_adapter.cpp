#include "tensor_parallel/low_rank_adapter.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "base/text.h"
#include "random/philox.h"
#include "tensor_parallel/parallel_linear.h"
#include "tensor_parallel/rows.h"

namespace tptrain::tensor_parallel {

namespace {

using kernels::Accumulate;
using parameters::Parameter;
using parameters::Placement;
using parameters::Role;
using parameters::TpGradient;
using sharding::Init;

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
  find_others(options.local_out);
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
  up->site = site.name;
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

void LowRankAdapter::find_others(int64_t local_out) {
  int64_t begin = 0;
  const auto until = [&](int64_t end) {
    if (begin < end) others_.push_back({.begin = begin, .end = end});
  };
  for (const auto& up : ups_) {
    until(up->first_column);
    begin = up->first_column + up->weight.shape[0];
  }
  until(local_out);
}

at::Tensor LowRankAdapter::columns_of_site(const at::Tensor& rows, size_t index) const {
  return rows.narrow(1, static_cast<int64_t>(index) * low_rank_.rank, low_rank_.rank);
}

void LowRankAdapter::drop_(at::Tensor& x, size_t site, int64_t first,
                           const kernels::Dropout& dropout) const {
  const uint64_t of_all = uint64_t{dropout.key[0]} << 32 | dropout.key[1];
  kernels::Dropout here = dropout;
  here.key = random::philox_key(of_all, ups_[site]->site);
  here.first_element = first_input_;
  kernels::dropout_(x, here, first);
}

template <typename Use>
void LowRankAdapter::for_each_seen(const at::Tensor& x, int64_t first,
                                   const kernels::Dropout& dropout, Use use) const {
  if (dropout.probability == 0) {
    use(Seen{.x = rows_of(x), .first_row = 0, .rows = down_.shape[0]});
    return;
  }
  for (size_t i = 0; i < ups_.size(); ++i) {
    at::Tensor copy = x.clone(at::MemoryFormat::Contiguous);
    drop_(copy, i, first, dropout);
    use(Seen{.x = rows_of(copy),
             .first_row = static_cast<int64_t>(i) * low_rank_.rank,
             .rows = low_rank_.rank});
  }
}

at::Tensor LowRankAdapter::empty_down(const at::Tensor& like) const {
  return at::empty({like.size(0), like.size(1), down_.shape[0]}, like.options());
}

void LowRankAdapter::multiply_by_down(const at::Tensor& down, const at::Tensor& x, int64_t first,
                                      const kernels::Dropout& dropout) const {
  const at::Tensor low = rows_of(down);
  for_each_seen(x, first, dropout, [&](const Seen& seen) {
    at::Tensor columns = low.narrow(1, seen.first_row, seen.rows);
    kernels::scaled_product_out(columns, seen.x,
                                down_.data.narrow(0, seen.first_row, seen.rows).t(),
                                low_rank_.scale, Accumulate::overwrite);
  });
}

void LowRankAdapter::forward(const at::Tensor& y, const at::Tensor& down, const at::Tensor& x,
                             const at::Tensor& bias, int64_t first,
                             const kernels::Dropout& dropout) const {
  multiply_by_down(down, x, first, dropout);
  const at::Tensor low = rows_of(down);
  const at::Tensor output = rows_of(y);
  const auto bias_of = [&](int64_t column, int64_t columns) {
    return bias.defined() ? bias.narrow(0, column, columns) : at::Tensor();
  };
  for (size_t i = 0; i < ups_.size(); ++i) {
    const at::Tensor& b = ups_[i]->weight.data;
    const int64_t column = ups_[i]->first_column, columns = b.size(0);
    at::Tensor part = output.narrow(1, column, columns);
    kernels::product_out(part, columns_of_site(low, i), b.t(), bias_of(column, columns));
  }
  for (const Range& range : others_) {
    const at::Tensor part = output.narrow(1, range.begin, range.size());
    if (bias.defined())
      part.copy_(bias_of(range.begin, range.size()).expand_as(part));
    else
      part.zero_();
  }
}

at::Tensor LowRankAdapter::down_of(const at::Tensor& x, const kernels::Dropout& dropout) const {
  at::Tensor down = empty_down(x);
  multiply_by_down(down, x, /*first=*/0, dropout);
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
  at::Tensor grad_down = empty_down(grad_output);
  multiply_by_up(grad_down, grad_output);
  return grad_down;
}

void LowRankAdapter::input_gradient(const at::Tensor& grad_input, const at::Tensor& grad_down,
                                    const at::Tensor& grad_output, int64_t first,
                                    const kernels::Dropout& dropout) const {
  multiply_by_up(grad_down, grad_output);
  const at::Tensor low = rows_of(grad_down);
  if (dropout.probability == 0) {
    at::Tensor rows = rows_of(grad_input);
    kernels::product_out(rows, low, down_.data);
    return;
  }
  // What a site dropped of x has no part in its outputs: its term of the gradient is dropped alike.
  for (size_t i = 0; i < ups_.size(); ++i) {
    at::Tensor term = i == 0 ? grad_input : at::empty(grad_input.sizes(), grad_input.options());
    at::Tensor rows = rows_of(term);
    kernels::product_out(
        rows, columns_of_site(low, i),
        down_.data.narrow(0, static_cast<int64_t>(i) * low_rank_.rank, low_rank_.rank));
    drop_(term, i, first, dropout);
    if (i > 0) grad_input.add_(term);
  }
}

void LowRankAdapter::weight_gradient(const at::Tensor& grad_output, const at::Tensor& x,
                                     const at::Tensor& down, const at::Tensor& grad_down,
                                     const kernels::Dropout& dropout) {
  if (down_.trains) {
    const Accumulate accumulate = accumulation_of(down_);
    for_each_seen(x, /*first=*/0, dropout, [&](const Seen& seen) {
      at::Tensor rows = down_.main_grad.narrow(0, seen.first_row, seen.rows);
      kernels::accumulate_weight_gradient(
          rows, rows_of(grad_down).narrow(1, seen.first_row, seen.rows), seen.x, accumulate);
    });
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
