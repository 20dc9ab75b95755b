#include "optim/cuda_update.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "kernels/cuda/stream.h"
#include "optim/stochastic_rounding.h"

namespace tptrain::optim {

namespace {

using kernels::cuda::Chunk;
using kernels::cuda::DeviceTable;
using kernels::cuda::Element;

Element element_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kFloat ? Element::fp32 : Element::bf16;
}

/// The place in `all`, to which it is appended where it is new.
int64_t index_of(std::vector<RuleOptions>& all, const RuleOptions& options) {
  const auto found = std::find(all.begin(), all.end(), options);
  const int64_t index = found - all.begin();
  if (found == all.end()) all.push_back(options);
  return index;
}

cuda::Rounding rounding_of(const RoundingSite& site, uint64_t seed) {
  const std::array<uint32_t, 2> key = rounding_key(seed, site.spec.name);
  const SliceBlocks blocks = blocks_of(site.spec);
  return {.key = {key[0], key[1]},
          .begin = site.begin,
          .local_block = blocks.local_block,
          .global_block = blocks.global_block,
          .global_begin = blocks.global_begin};
}

kernels::cuda::WrittenRows written_rows_of(const UpdateRange& range) {
  if (!range.written_rows.defined()) return {};
  return {.written = range.written_rows.const_data_ptr<uint8_t>(),
          .row_elements = range.master.numel() / range.written_rows.numel()};
}

cuda::Range row_of(const UpdateRange& range, int64_t options, uint64_t seed) {
  cuda::Range row = {
      .master = range.master.mutable_data_ptr(),
      .gradient = range.gradient.const_data_ptr(),
      .weights = range.weights.defined() ? range.weights.mutable_data_ptr() : nullptr,
      .options = options,
      .of_gradient = written_rows_of(range),
      .rounding = range.rounding ? rounding_of(*range.rounding, seed) : cuda::Rounding{}};
  for (size_t s = 0; s < range.slots.size(); ++s) row.slots[s] = range.slots[s].mutable_data_ptr();
  return row;
}

int64_t elements_before_packs(const UpdateRange& range) {
  const auto address = [](const at::Tensor& tensor) {
    return kernels::cuda::Address{tensor.const_data_ptr(), tensor.element_size()};
  };
  static_assert(kMostSlots == 2);  // the first and the last are all of them
  return kernels::cuda::elements_before_packs(
      {address(range.master), address(range.slots.front()), address(range.slots.back()),
       address(range.gradient), address(range.weights.defined() ? range.weights : range.master)});
}

}  // namespace

template <typename Rule>
CudaUpdate<Rule>::CudaUpdate(const std::vector<UpdateRange>& ranges,
                             const std::vector<size_t>& begins, at::Device device, uint64_t seed)
    : passes_(begins.size() - 1) {
  std::vector<RuleOptions> options;
  const auto append_pass = [&](size_t part, Element master, Element slots, Element gradient) {
    std::vector<cuda::Range> rows;
    std::vector<Chunk> chunks;
    for (size_t i = begins[part]; i < begins[part + 1]; ++i) {
      const UpdateRange& range = ranges[i];
      if (element_of(range.master) != master || element_of(range.slots[0]) != slots ||
          element_of(range.gradient) != gradient)
        continue;
      if (range.master.numel() == 0) continue;
      kernels::cuda::append_chunks(chunks, static_cast<int64_t>(rows.size()), range.master.numel(),
                                   cuda::kChunkElements, elements_before_packs(range));
      rows.push_back(row_of(range, index_of(options, range.options), seed));
    }
    if (rows.empty()) return;
    passes_[part].push_back({.master = master,
                             .slots = slots,
                             .gradient = gradient,
                             .ranges = DeviceTable<cuda::Range>(rows, device),
                             .chunks = DeviceTable<Chunk>(chunks, device)});
  };
  for (size_t part = 0; part < passes_.size(); ++part) {
    for (const Element master : {Element::fp32, Element::bf16}) {
      for (const Element slots : {Element::fp32, Element::bf16}) {
        for (const Element gradient : {Element::fp32, Element::bf16})
          append_pass(part, master, slots, gradient);
      }
    }
  }
  options_ = {options, device};
  constants_ = {std::vector<typename Rule::Constants>(options.size()), device};
}

template <typename Rule>
void CudaUpdate<Rule>::begin(const UpdateStep& step) const {
  cuda::begin<Rule>({.options = options_.rows(),
                     .constants = constants_.rows(),
                     .count = options_.size(),
                     .learning_rate = step.learning_rate.const_data_ptr<double>(),
                     .gradient_scale = step.gradient_scale.const_data_ptr<float>(),
                     .finite = step.finite.const_data_ptr<bool>(),
                     .updates = step.updates.mutable_data_ptr<float>()},
                    kernels::cuda::stream_of(step.updates));
  kernels::cuda::check_launch(Rule::kName);
}

template <typename Rule>
void CudaUpdate<Rule>::apply(int part, const UpdateStep& step) const {
  const kernels::cuda::Stream stream = kernels::cuda::stream_of(step.updates);
  for (const Pass& pass : passes_[part]) {
    cuda::update<Rule>({.master = pass.master,
                        .slots = pass.slots,
                        .gradient = pass.gradient,
                        .ranges = pass.ranges.rows(),
                        .chunks = pass.chunks.rows(),
                        .chunk_count = pass.chunks.size(),
                        .constants = constants_.rows(),
                        .finite = step.finite.const_data_ptr<bool>(),
                        .updates = step.updates.const_data_ptr<float>()},
                       stream);
  }
  kernels::cuda::check_launch(Rule::kName);
}

#define TPTRAIN_INSTANTIATE(Rule) template class CudaUpdate<Rule>;
TPTRAIN_ELEMENT_RULES(TPTRAIN_INSTANTIATE)
#undef TPTRAIN_INSTANTIATE

}  // namespace tptrain::optim
