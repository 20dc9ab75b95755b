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
int64_t index_of(std::vector<AdamWOptions>& all, const AdamWOptions& options) {
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

cuda::Range row_of(const AdamWRange& range, int64_t options, uint64_t seed) {
  return {.master = range.master.mutable_data_ptr(),
          .exp_avg = range.exp_avg.mutable_data_ptr(),
          .exp_avg_sq = range.exp_avg_sq.mutable_data_ptr(),
          .gradient = range.gradient.const_data_ptr<float>(),
          .weights = range.weights.defined() ? range.weights.mutable_data_ptr() : nullptr,
          .options = options,
          .rounding = range.rounding ? rounding_of(*range.rounding, seed) : cuda::Rounding{}};
}

int64_t elements_before_packs(const AdamWRange& range) {
  const auto address = [](const at::Tensor& tensor) {
    return kernels::cuda::Address{tensor.const_data_ptr(), tensor.element_size()};
  };
  return kernels::cuda::elements_before_packs(
      {address(range.master), address(range.exp_avg), address(range.exp_avg_sq),
       address(range.gradient), address(range.weights.defined() ? range.weights : range.master)});
}

}  // namespace

CudaUpdate::CudaUpdate(const std::vector<AdamWRange>& ranges, const std::vector<size_t>& begins,
                       at::Device device, uint64_t seed)
    : passes_(begins.size() - 1) {
  std::vector<AdamWOptions> options;
  const auto append_pass = [&](size_t part, Element master, Element moments) {
    std::vector<cuda::Range> rows;
    std::vector<Chunk> chunks;
    for (size_t i = begins[part]; i < begins[part + 1]; ++i) {
      const AdamWRange& range = ranges[i];
      if (element_of(range.master) != master || element_of(range.exp_avg) != moments) continue;
      if (range.master.numel() == 0) continue;
      kernels::cuda::append_chunks(chunks, static_cast<int64_t>(rows.size()), range.master.numel(),
                                   cuda::kChunkElements, elements_before_packs(range));
      rows.push_back(row_of(range, index_of(options, range.options), seed));
    }
    if (rows.empty()) return;
    passes_[part].push_back({.master = master,
                             .moments = moments,
                             .ranges = DeviceTable<cuda::Range>(rows, device),
                             .chunks = DeviceTable<Chunk>(chunks, device)});
  };
  for (size_t part = 0; part < passes_.size(); ++part) {
    for (const Element master : {Element::fp32, Element::bf16}) {
      for (const Element moments : {Element::fp32, Element::bf16})
        append_pass(part, master, moments);
    }
  }
  options_ = {options, device};
  constants_ = {std::vector<AdamWConstants>(options.size()), device};
}

void CudaUpdate::begin(const AdamWStep& step) const {
  cuda::begin({.options = options_.rows(),
               .constants = constants_.rows(),
               .count = options_.size(),
               .learning_rate = step.learning_rate.const_data_ptr<double>(),
               .gradient_scale = step.gradient_scale.const_data_ptr<float>(),
               .finite = step.finite.const_data_ptr<bool>(),
               .updates = step.updates.mutable_data_ptr<float>()},
              kernels::cuda::stream_of(step.updates));
  kernels::cuda::check_launch("adamw");
}

void CudaUpdate::apply(int part, const AdamWStep& step) const {
  const kernels::cuda::Stream stream = kernels::cuda::stream_of(step.updates);
  for (const Pass& pass : passes_[part]) {
    cuda::update({.master = pass.master,
                  .moments = pass.moments,
                  .ranges = pass.ranges.rows(),
                  .chunks = pass.chunks.rows(),
                  .chunk_count = pass.chunks.size(),
                  .constants = constants_.rows(),
                  .finite = step.finite.const_data_ptr<bool>(),
                  .updates = step.updates.const_data_ptr<float>()},
                 stream);
  }
  kernels::cuda::check_launch("adamw");
}

}  // namespace tptrain::optim
