#include "optim/cuda_update.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <utility>

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
template <typename T>
int64_t index_of(std::vector<T>& all, const T& one) {
  const auto found = std::find(all.begin(), all.end(), one);
  const int64_t index = found - all.begin();
  if (found == all.end()) all.push_back(one);
  return index;
}

uint32_t* amax_of(const UpdateRange& range) {
  return range.amax.defined() ? static_cast<uint32_t*>(range.amax.mutable_data_ptr()) : nullptr;
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
      .amax = amax_of(range),
      .options = options,
      .of_gradient = written_rows_of(range),
      .rounding = range.rounding ? rounding_of(*range.rounding, seed) : cuda::Rounding{}};
  for (size_t s = 0; s < range.slots.size(); ++s) row.slots[s] = range.slots[s].mutable_data_ptr();
  return row;
}

/// Whether its whole chunks go through cuda::update_words.
bool moves_in_words(const UpdateRange& range, const cuda::Range& row) {
  const auto begins_in_word = [](const void* data) {
    return reinterpret_cast<uintptr_t>(data) % 16 == 0;
  };
  const cuda::Rounding& site = row.rounding;
  const int64_t elements = site.begin | site.local_block | site.global_block | site.global_begin;
  return (!range.rounding || elements % 8 == 0) && begins_in_word(row.master) &&
         begins_in_word(row.gradient) && begins_in_word(row.weights) &&
         std::ranges::all_of(row.slots, begins_in_word);
}

/// How many elements they are.
int64_t append_whole_chunks(std::vector<cuda::LaunchedRanges>& launches, const cuda::Range& row,
                            int64_t numel) {
  const int64_t chunks = numel / cuda::kChunkElements;
  if (chunks == 0) return 0;
  if (launches.empty() || launches.back().count == cuda::LaunchedRanges::kMost)
    launches.emplace_back();
  cuda::LaunchedRanges& launch = launches.back();
  launch.ranges[launch.count] = row;
  launch.first_chunk[launch.count + 1] =
      launch.first_chunk[launch.count] + static_cast<int32_t>(chunks);
  ++launch.count;
  return chunks * cuda::kChunkElements;
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
    std::vector<cuda::LaunchedRanges> words;
    std::vector<Chunk> chunks;
    for (size_t i = begins[part]; i < begins[part + 1]; ++i) {
      const UpdateRange& range = ranges[i];
      if (element_of(range.master) != master || element_of(range.slots[0]) != slots ||
          element_of(range.gradient) != gradient)
        continue;
      if (range.master.numel() == 0) continue;
      const auto row = static_cast<int64_t>(rows.size());
      rows.push_back(row_of(range, index_of(options, range.options), seed));
      int64_t done = 0;
      if (master == Element::bf16 && moves_in_words(range, rows.back()))
        done = append_whole_chunks(words, rows.back(), range.master.numel());
      const size_t others = chunks.size();
      kernels::cuda::append_chunks(chunks, row, range.master.numel() - done, cuda::kChunkElements,
                                   done > 0 ? 0 : elements_before_packs(range));
      for (size_t c = others; c < chunks.size(); ++c) chunks[c].begin += done;
    }
    if (rows.empty()) return;
    passes_[part].push_back({.master = master,
                             .slots = slots,
                             .gradient = gradient,
                             .ranges = DeviceTable<cuda::Range>(rows, device),
                             .words = std::move(words),
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
  std::vector<uint32_t*> amax;
  for (const UpdateRange& range : ranges)
    if (range.amax.defined()) index_of(amax, amax_of(range));
  amax_ = {amax, device};
  options_ = {options, device};
  constants_ = {std::vector<typename Rule::Constants>(options.size()), device};
}

template <typename Rule>
void CudaUpdate<Rule>::begin(const UpdateStep& step) const {
  cuda::begin<Rule>({.options = options_.rows(),
                     .constants = constants_.rows(),
                     .count = options_.size(),
                     .amax = amax_.rows(),
                     .amax_count = amax_.size(),
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
    cuda::Pass<Rule> args = {.master = pass.master,
                             .slots = pass.slots,
                             .gradient = pass.gradient,
                             .constants = constants_.rows(),
                             .finite = step.finite.const_data_ptr<bool>(),
                             .updates = step.updates.const_data_ptr<float>()};
    for (const cuda::LaunchedRanges& words : pass.words) cuda::update_words(args, words, stream);
    args.ranges = pass.ranges.rows();
    args.chunks = pass.chunks.rows();
    args.chunk_count = pass.chunks.size();
    cuda::update(args, stream);
  }
  kernels::cuda::check_launch(Rule::kName);
}

#define TPTRAIN_INSTANTIATE(Rule) template class CudaUpdate<Rule>;
TPTRAIN_ELEMENT_RULES(TPTRAIN_INSTANTIATE)
#undef TPTRAIN_INSTANTIATE

}  // namespace tptrain::optim
