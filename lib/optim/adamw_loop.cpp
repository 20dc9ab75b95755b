#include "optim/adamw_loop.h"

#include <algorithm>
#include <cmath>

#include "base/philox.h"
#include "kernels/cpu/philox_block.h"

namespace tptrain::optim {

namespace {

using kernels::cpu::narrow;
using kernels::cpu::PhiloxBlock;
using kernels::cpu::widen;

/// Up or down with the probability that keeps the expectation: a random number below one unit of
/// the last bf16 place is added, what lies below that place is cut off. Infinity and NaN stay.
TPTRAIN_INLINE Bf16 round_stochastically(float value, uint16_t random) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint16_t rounded = static_cast<uint16_t>((bits + random) >> 16);
  const uint16_t nearest = narrow<Bf16>(value).bits;
  return {(bits & 0x7f800000u) == 0x7f800000u ? nearest : rounded};
}

template <typename Master, typename Moment>
TPTRAIN_INLINE void update(const AdamWArrays<Master, Moment>& arrays, const AdamWConstants& c,
                           const uint16_t* __restrict rounding, int64_t begin, int64_t end) {
  Master* __restrict master = arrays.master;
  Moment* __restrict exp_avg = arrays.exp_avg;
  Moment* __restrict exp_avg_sq = arrays.exp_avg_sq;
  const float* __restrict gradient = arrays.gradient;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = gradient[i] * c.gradient_scale;
    const float p = widen(master[i]);
    const float old_m = widen(exp_avg[i]);
    const float decayed = p - c.decay * p;
    const float m = old_m + c.one_minus_beta1 * (g - old_m);
    const float v = c.beta2 * widen(exp_avg_sq[i]) + c.one_minus_beta2 * g * g;
    exp_avg[i] = narrow<Moment>(m);
    exp_avg_sq[i] = narrow<Moment>(v);
    const float updated =
        decayed - c.step_size * m / (std::sqrt(v) * c.inverse_correction2 + c.eps);
    if constexpr (sizeof(Master) == sizeof(float)) {
      master[i] = updated;
    } else {
      master[i] = round_stochastically(updated, rounding[i - begin]);
    }
  }
}

// Fewer groups than this are cheaper one by one than as a block that is mostly thrown away.
constexpr int64_t kGroupsWorthABlock = 12;

}  // namespace

TPTRAIN_CPU_CLONES
void adamw_elements(const AdamWArrays<float, float>& arrays, const AdamWConstants& constants,
                    int64_t begin, int64_t end) {
  const AdamWConstants c = constants;
  update(arrays, c, nullptr, begin, end);
}
TPTRAIN_CPU_CLONES
void adamw_elements(const AdamWArrays<float, Bf16>& arrays, const AdamWConstants& constants,
                    int64_t begin, int64_t end) {
  const AdamWConstants c = constants;
  update(arrays, c, nullptr, begin, end);
}
TPTRAIN_CPU_CLONES
void adamw_elements(const AdamWArrays<Bf16, float>& arrays, const AdamWConstants& constants,
                    const uint16_t* rounding, int64_t begin, int64_t end) {
  const AdamWConstants c = constants;
  update(arrays, c, rounding, begin, end);
}
TPTRAIN_CPU_CLONES
void adamw_elements(const AdamWArrays<Bf16, Bf16>& arrays, const AdamWConstants& constants,
                    const uint16_t* rounding, int64_t begin, int64_t end) {
  const AdamWConstants c = constants;
  update(arrays, c, rounding, begin, end);
}

TPTRAIN_CPU_CLONES
void narrow_elements(const float* from, Bf16* to, int64_t begin, int64_t end) {
  const float* __restrict source = from;
  Bf16* __restrict target = to;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) target[i] = narrow<Bf16>(source[i]);
}

TPTRAIN_CPU_CLONES
void rounding_halves(std::array<uint32_t, 2> key, uint32_t update, int64_t first, int64_t count,
                     uint16_t* out) {
  int64_t skipped = first % 8;  // elements of the first group that lie before `first`
  int64_t written = 0;
  for (int64_t group = first / 8; written < count;) {
    const int64_t wanted = (skipped + count - written + 7) / 8;
    const int64_t groups =
        wanted >= kGroupsWorthABlock ? std::min<int64_t>(wanted, PhiloxBlock::kCounters) : 1;
    uint16_t halves[8 * PhiloxBlock::kCounters];
    if (groups > 1) {
      PhiloxBlock block;
      for (int64_t i = 0; i < PhiloxBlock::kCounters; ++i) {
        const uint64_t index = static_cast<uint64_t>(group + i);
        block.word[0][i] = static_cast<uint32_t>(index);
        block.word[1][i] = static_cast<uint32_t>(index >> 32);
        block.word[2][i] = update;
        block.word[3][i] = 0;
      }
      philox_block(block, key);
      for (int64_t i = 0; i < PhiloxBlock::kCounters; ++i) {
        for (int64_t word = 0; word < 4; ++word) {
          halves[8 * i + 2 * word] = static_cast<uint16_t>(block.word[word][i]);
          halves[8 * i + 2 * word + 1] = static_cast<uint16_t>(block.word[word][i] >> 16);
        }
      }
    } else {
      const uint64_t index = static_cast<uint64_t>(group);
      const std::array<uint32_t, 4> words = philox_rounds(
          {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), update, 0}, key);
      for (size_t word = 0; word < 4; ++word) {
        halves[2 * word] = static_cast<uint16_t>(words[word]);
        halves[2 * word + 1] = static_cast<uint16_t>(words[word] >> 16);
      }
    }
    const int64_t taken = std::min(groups * 8 - skipped, count - written);
    std::copy_n(halves + skipped, taken, out + written);
    written += taken;
    group += groups;
    skipped = 0;
  }
}

}  // namespace tptrain::optim
