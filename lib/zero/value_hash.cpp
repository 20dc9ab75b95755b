// CPU: one loop. CUDA: whole-tensor int64 operations, which wrap around in the same way, chunk by
// chunk, so that the int64 copy of the bits stays small.
#include "zero/value_hash.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "zero/word_loops.h"

namespace tptrain::zero {
namespace {

at::Tensor weights_on(at::Device device, int64_t count) {
  const at::Tensor z = at::arange(1, count + 1, at::TensorOptions().dtype(at::kLong).device(device))
                           .mul_(static_cast<int64_t>(kHashStep));
  return z.add(static_cast<int64_t>(kHashMix)).mul_(z).bitwise_or_(1);
}

at::Tensor bits_of(const at::Tensor& values) {
  return values.view(values.scalar_type() == at::kFloat ? at::kInt : at::kShort);
}

}  // namespace

at::Tensor value_hash(const at::Tensor& values) {
  if (!values.is_cpu()) return value_hash_by_operations(values);
  const at::Tensor bits = bits_of(values);
  const uint64_t hash = bits.scalar_type() == at::kInt
                            ? hash_words(bits.const_data_ptr<int32_t>(), bits.numel())
                            : hash_words(bits.const_data_ptr<int16_t>(), bits.numel());
  return at::full({}, static_cast<int64_t>(hash), at::TensorOptions().dtype(at::kLong));
}

at::Tensor value_hash_by_operations(const at::Tensor& values) {
  const at::Tensor bits = bits_of(values);
  at::Tensor hash = at::zeros({}, at::TensorOptions().dtype(at::kLong).device(values.device()));
  const at::Tensor weights = weights_on(values.device(), std::min(kHashedAtOnce, bits.numel()));
  for (int64_t begin = 0; begin < bits.numel(); begin += kHashedAtOnce) {
    const int64_t count = std::min(kHashedAtOnce, bits.numel() - begin);
    const at::Tensor sum =
        bits.narrow(0, begin, count).to(at::kLong).add_(1).mul_(weights.narrow(0, 0, count)).sum();
    hash.add_(
        sum.mul(static_cast<int64_t>(hash_weight(static_cast<uint64_t>(begin / kHashedAtOnce)))));
  }
  return hash;
}

}  // namespace tptrain::zero
