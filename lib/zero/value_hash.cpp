// CPU: one loop. CUDA: whole-tensor int64 operations, which wrap around in the same way, chunk by
// chunk, so that the int64 copy of the bits stays small.
#include "zero/value_hash.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

namespace tptrain::zero {
namespace {

constexpr int64_t kChunk = int64_t{1} << 20;
// 2^64 divided by the golden ratio, and the first multiplier of splitmix64.
constexpr uint64_t kStep = 0x9E3779B97F4A7C15u, kMix = 0xBF58476D1CE4E5B9u;

// The weight of an index. Squaring breaks the arithmetic progression: with weights i * kStep, pairs
// of changes at i, i + 1 and j, j + 1 would cancel.
uint64_t weight(uint64_t index) {
  const uint64_t z = (index + 1) * kStep;
  return (z * (z + kMix)) | 1u;
}

at::Tensor weights_on(at::Device device, int64_t count) {
  const at::Tensor z = at::arange(1, count + 1, at::TensorOptions().dtype(at::kLong).device(device))
                           .mul_(static_cast<int64_t>(kStep));
  return z.add(static_cast<int64_t>(kMix)).mul_(z).bitwise_or_(1);
}

at::Tensor bits_of(const at::Tensor& values) {
  return values.view(values.scalar_type() == at::kFloat ? at::kInt : at::kShort);
}

template <typename Word>
uint64_t hash_on_cpu(const Word* words, int64_t numel) {
  uint64_t hash = 0;
  for (int64_t begin = 0; begin < numel; begin += kChunk) {
    const int64_t end = std::min(numel, begin + kChunk);
    uint64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      const auto bits = static_cast<uint64_t>(static_cast<int64_t>(words[i]));
      sum += (bits + 1) * weight(static_cast<uint64_t>(i - begin));
    }
    hash += sum * weight(static_cast<uint64_t>(begin / kChunk));
  }
  return hash;
}

}  // namespace

at::Tensor value_hash(const at::Tensor& values) {
  if (!values.is_cpu()) return value_hash_by_operations(values);
  const at::Tensor bits = bits_of(values);
  const uint64_t hash = bits.scalar_type() == at::kInt
                            ? hash_on_cpu(bits.const_data_ptr<int32_t>(), bits.numel())
                            : hash_on_cpu(bits.const_data_ptr<int16_t>(), bits.numel());
  return at::full({}, static_cast<int64_t>(hash), at::TensorOptions().dtype(at::kLong));
}

at::Tensor value_hash_by_operations(const at::Tensor& values) {
  const at::Tensor bits = bits_of(values);
  at::Tensor hash = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(values.device()));
  const at::Tensor weights = weights_on(values.device(), std::min(kChunk, bits.numel()));
  for (int64_t begin = 0; begin < bits.numel(); begin += kChunk) {
    const int64_t count = std::min(kChunk, bits.numel() - begin);
    const at::Tensor sum =
        bits.narrow(0, begin, count).to(at::kLong).add_(1).mul_(weights.narrow(0, 0, count)).sum();
    hash.add_(sum.mul(static_cast<int64_t>(weight(static_cast<uint64_t>(begin / kChunk)))));
  }
  return hash;
}

}  // namespace tptrain::zero
