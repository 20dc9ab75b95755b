#include "parameters/parameter_store.h"

#include <ATen/Functions.h>

#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::parameters {
namespace {

void check_dtype(at::ScalarType dtype) {
  if (dtype == at::kFloat || dtype == at::kBFloat16) return;
  throw InternalError(
      problem(cat("parameters of dtype ", at::toString(dtype))).must("be fp32 or bf16"));
}

void check_range(const FlatRange& range, const std::vector<int64_t>& buffers) {
  const auto buffer = static_cast<size_t>(range.buffer);
  if (range.buffer >= 0 && buffer < buffers.size() && range.begin >= 0 &&
      range.begin + range.numel <= buffers[buffer])
    return;
  throw InternalError(problem(cat("the range [", range.begin, ", ", range.begin + range.numel,
                                  ") of buffer ", range.buffer))
                          .must("fit into one of the layout's"));
}

}  // namespace

int64_t StoreLayout::numel() const {
  return std::accumulate(buffers.begin(), buffers.end(), int64_t{0});
}

StoreLayout whole_layout(const std::vector<ParameterBlock>& blocks) {
  StoreLayout layout;
  for (const ParameterBlock& block : blocks) {
    for (Parameter* parameter : block.parameters) {
      const int64_t numel = parameter->storage_numel();
      layout.ranges.push_back({.parameters = {parameter},
                               .offsets = {0},
                               .numel = numel,
                               .buffer = static_cast<int>(layout.buffers.size())});
      layout.buffers.push_back(numel);
    }
  }
  return layout;
}

ParameterStore::ParameterStore(StoreLayout layout, const Options& options)
    : layout_(std::move(layout)) {
  check_dtype(options.dtype);
  for (const int64_t numel : layout_.buffers)
    buffers_.push_back(
        at::zeros({numel}, at::TensorOptions().device(options.device).dtype(options.dtype)));
  for (size_t r = 0; r < layout_.ranges.size(); ++r) {
    check_range(layout_.ranges[r], layout_.buffers);
    const FlatRange& flat = layout_.ranges[r];
    const at::Tensor values = range(r);
    for (size_t i = 0; i < flat.parameters.size(); ++i) {
      Parameter& parameter = *flat.parameters[i];
      parameter.data = values.narrow(0, flat.offsets[i], parameter.numel()).view(parameter.shape);
    }
  }
}

at::Tensor ParameterStore::range(size_t index) const {
  const FlatRange& flat = layout_.ranges.at(index);
  return buffers_[static_cast<size_t>(flat.buffer)].narrow(0, flat.begin, flat.numel);
}

std::vector<SliceValues> ParameterStore::values() const {
  std::vector<int64_t> ends(buffers_.size(), 0);
  std::vector<SliceValues> values;
  for (const FlatRange& flat : layout_.ranges) {
    int64_t& end = ends[static_cast<size_t>(flat.buffer)];
    if (flat.begin < std::exchange(end, flat.begin + flat.numel)) {
      throw InternalError(problem("all values of parameters that take memory in turn")
                              .must("be asked for where each has its own"));
    }
    for (const Parameter* parameter : flat.parameters) {
      const at::Tensor all = parameter->data.view({-1});
      for (const NamedSlice& slice : parameter->slices) {
        const int64_t numel = slice.spec.local_numel();
        values.push_back(
            {.slice = &slice, .begin = 0, .values = all.narrow(0, slice.offset, numel)});
      }
    }
  }
  return values;
}

}  // namespace tptrain::parameters
