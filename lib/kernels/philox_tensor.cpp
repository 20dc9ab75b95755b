#include "kernels/philox_tensor.h"

#include <ATen/ATen.h>

namespace tptrain::kernels {

namespace {

constexpr int64_t kLowWord = 0xFFFFFFFF;

/// The upper word of a 64-bit product in int64: the shift brings copies of the sign in, which the
/// mask removes.
at::Tensor high_word(const at::Tensor& product) {
  return at::bitwise_right_shift(product, 32).bitwise_and_(kLowWord);
}

}  // namespace

PhiloxTensors philox_tensor(PhiloxTensors counter, std::array<uint32_t, 2> key) {
  // The constants of random/philox.h. A product of two words wraps around in int64, its bits are
  // those of uint64.
  constexpr int64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const at::Tensor product0 = counter[0] * kMultiplier0;
    const at::Tensor product1 = counter[2] * kMultiplier1;
    const at::Tensor left = at::bitwise_xor(counter[1], static_cast<int64_t>(key[0]));
    const at::Tensor right = at::bitwise_xor(counter[3], static_cast<int64_t>(key[1]));
    counter = {at::bitwise_xor(high_word(product1), left), at::bitwise_and(product1, kLowWord),
               at::bitwise_xor(high_word(product0), right), at::bitwise_and(product0, kLowWord)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

}  // namespace tptrain::kernels
