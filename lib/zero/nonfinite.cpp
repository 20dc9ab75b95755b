// CPU: the exponent bits of every word. CUDA: ATen's largest magnitude of many tensors in two
// launches.
#include "zero/nonfinite.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>
#include <limits>

namespace tptrain::zero {
namespace {

constexpr uint32_t kExponent = 0x7f800000u;  // of fp32: all ones in inf and nan alone
constexpr int64_t kChunk = 16384;

bool chunk_is_finite(const uint32_t* words, int64_t count) {
  uint32_t bad = 0;  // no branch within a chunk: the compiler makes vectors of it
  for (int64_t i = 0; i < count; ++i) bad |= (words[i] & kExponent) == kExponent ? 1u : 0u;
  return bad == 0;
}

bool is_finite_on_cpu(const at::Tensor& values) {
  const auto* words = static_cast<const uint32_t*>(values.const_data_ptr());
  const int64_t numel = values.numel();
  std::atomic<bool> finite = true;
  at::parallel_for(0, (numel + kChunk - 1) / kChunk, 4, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * kChunk;
      if (chunk_is_finite(words + begin, std::min(kChunk, numel - begin))) continue;
      finite.store(false, std::memory_order_relaxed);
      return;
    }
  });
  return finite;
}

}  // namespace

void mark_nonfinite(const std::vector<at::Tensor>& gradients, at::Tensor& marks) {
  if (gradients.empty()) return;
  if (marks.is_cpu()) {
    float* words = marks.mutable_data_ptr<float>();
    for (size_t i = 0; i < gradients.size(); ++i) {
      if (!is_finite_on_cpu(gradients[i])) words[i] = std::numeric_limits<float>::infinity();
    }
    return;
  }
  // The largest of all micro-batches, not their sum, which could overflow where no gradient does.
  const std::vector<at::Tensor> largest =
      at::_foreach_norm(gradients, std::numeric_limits<double>::infinity());
  at::maximum_out(marks, marks, at::stack(largest));
}

}  // namespace tptrain::zero
