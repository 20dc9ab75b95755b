#include "optim/element_loop.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/cpu/philox_block.h"
#include "random/philox.h"

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

template <typename Rule, typename Master, typename Slot, size_t... kSlot>
TPTRAIN_INLINE void update(const RuleArrays<Rule, Master, Slot>& arrays,
                           const typename Rule::Constants& c, const uint16_t* __restrict rounding,
                           int64_t begin, int64_t end, std::index_sequence<kSlot...>) {
  Master* __restrict master = arrays.master;
  Slot* const slots[] = {arrays.slots[kSlot]...};
  const float* __restrict gradient = arrays.gradient;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    float values[] = {widen(slots[kSlot][i])...};
    const float updated = Rule::step(gradient[i], widen(master[i]), values, c);
    ((slots[kSlot][i] = narrow<Slot>(values[kSlot])), ...);
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

#define TPTRAIN_DEFINE_LOOP(Rule, Master, Slot)                                        \
  TPTRAIN_CPU_CLONES                                                                   \
  TPTRAIN_UPDATE_ELEMENTS(Rule, Master, Slot) {                                        \
    const Rule::Constants c = constants;                                               \
    update(arrays, c, rounding, begin, end, std::make_index_sequence<Rule::kSlots>()); \
  }
#define TPTRAIN_DEFINE_LOOPS(Rule)        \
  TPTRAIN_DEFINE_LOOP(Rule, float, float) \
  TPTRAIN_DEFINE_LOOP(Rule, float, Bf16)  \
  TPTRAIN_DEFINE_LOOP(Rule, Bf16, float)  \
  TPTRAIN_DEFINE_LOOP(Rule, Bf16, Bf16)
TPTRAIN_ELEMENT_RULES(TPTRAIN_DEFINE_LOOPS)

TPTRAIN_CPU_CLONES
void narrow_elements(const float* from, Bf16* to, int64_t begin, int64_t end) {
  const float* __restrict source = from;
  Bf16* __restrict target = to;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) target[i] = narrow<Bf16>(source[i]);
}

TPTRAIN_CPU_CLONES
void widen_elements(const Bf16* from, float* to, int64_t begin, int64_t end) {
  const Bf16* __restrict source = from;
  float* __restrict target = to;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) target[i - begin] = widen(source[i]);
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
      const std::array<uint32_t, 4> words = random::philox_rounds(
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
