// The exponent bits of every word: a loop on the CPU, one launch over all gradients on CUDA.
#include "zero/nonfinite.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <utility>

#include "kernels/cpu/parallel.h"
#include "kernels/cuda/stream.h"
#include "zero/gradient_row.h"
#include "zero/word_loops.h"

namespace tptrain::zero {
namespace {

constexpr int64_t kSearchedAtOnce = 16384;

bool is_finite_on_cpu(const at::Tensor& gradient) {
  const at::Tensor values = gradient.to(at::kFloat);  // itself, where it is
  const auto* words = static_cast<const uint32_t*>(values.const_data_ptr());
  const int64_t numel = values.numel();
  std::atomic<bool> finite = true;
  kernels::cpu::parallel_rows(
      (numel + kSearchedAtOnce - 1) / kSearchedAtOnce, 4, [&](int64_t first, int64_t last) {
        for (int64_t chunk = first; chunk < last; ++chunk) {
          const int64_t begin = chunk * kSearchedAtOnce;
          if (words_are_finite(words + begin, std::min(kSearchedAtOnce, numel - begin))) continue;
          finite.store(false, std::memory_order_relaxed);
          return;
        }
      });
  return finite;
}

}  // namespace

NonfiniteFlags::NonfiniteFlags(std::vector<at::Tensor> gradients, at::Tensor flags)
    : gradients_(std::move(gradients)), flags_(std::move(flags)) {
  const bool searches_some = std::any_of(gradients_.begin(), gradients_.end(),
                                         [](const at::Tensor& g) { return g.defined(); });
  if (!searches_some) gradients_.clear();
  if (flags_.is_cpu()) return;
  std::vector<cuda::Gradient> tensors;
  std::vector<kernels::cuda::Chunk> chunks;
  for (const at::Tensor& gradient : gradients_) {
    if (!gradient.defined()) {
      tensors.emplace_back();
      continue;
    }
    const cuda::Gradient row = row_of(gradient);
    kernels::cuda::append_chunks(
        chunks, static_cast<int64_t>(tensors.size()), gradient.numel(), cuda::kChunkElements,
        kernels::cuda::elements_before_packs({{row.data, gradient.element_size()}}));
    tensors.push_back(row);
  }
  tensors_ = {tensors, flags_.device()};
  chunks_ = {chunks, flags_.device()};
}

void NonfiniteFlags::update() {
  if (gradients_.empty()) return;
  if (!flags_.is_cpu()) {
    update_on_cuda();
    return;
  }
  float* words = flags_.mutable_data_ptr<float>();
  for (size_t i = 0; i < gradients_.size(); ++i) {
    if (gradients_[i].defined() && !is_finite_on_cpu(gradients_[i]))
      words[i] = std::numeric_limits<float>::infinity();
  }
}

void NonfiniteFlags::update_on_cuda() {
  cuda::mark_nonfinite({.tensors = tensors_.rows(),
                        .chunks = chunks_.rows(),
                        .chunk_count = chunks_.size(),
                        .marks = flags_.mutable_data_ptr<float>()},
                       kernels::cuda::stream_of(flags_));
  kernels::cuda::check_launch("mark_nonfinite");
}

}  // namespace tptrain::zero
