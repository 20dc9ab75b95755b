// The pass of an element rule on raw arrays: every element read and written once. Master and slots
// lie in memory as float or Bf16, arithmetic is fp32. No torch, no threads.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/cpu/vector.h"
#include "optim/element_rules.h"

namespace tptrain::optim {

using kernels::cpu::Bf16;

template <typename Rule, typename Master, typename Slot>
struct RuleArrays {
  Master* master = nullptr;
  std::array<Slot*, Rule::kSlots> slots = {};  // stored rounded to nearest
  const float* gradient = nullptr;
};

/// Updates elements [begin, end). A bf16 master is rounded stochastically: rounding[i - begin]
/// holds 16 random bits; null for fp32.
#define TPTRAIN_UPDATE_ELEMENTS(Rule, Master, Slot)                                               \
  void update_elements(const RuleArrays<Rule, Master, Slot>& arrays,                              \
                       const Rule::Constants& constants, const uint16_t* rounding, int64_t begin, \
                       int64_t end)
#define TPTRAIN_DECLARE_LOOPS(Rule)            \
  TPTRAIN_UPDATE_ELEMENTS(Rule, float, float); \
  TPTRAIN_UPDATE_ELEMENTS(Rule, float, Bf16);  \
  TPTRAIN_UPDATE_ELEMENTS(Rule, Bf16, float);  \
  TPTRAIN_UPDATE_ELEMENTS(Rule, Bf16, Bf16);
TPTRAIN_ELEMENT_RULES(TPTRAIN_DECLARE_LOOPS)
#undef TPTRAIN_DECLARE_LOOPS

/// to[i] = from[i] rounded to nearest.
void narrow_elements(const float* from, Bf16* to, int64_t begin, int64_t end);
/// to[i - begin] = from[i].
void widen_elements(const Bf16* from, float* to, int64_t begin, int64_t end);

/// 16 random bits for each of the global elements [first, first + count): eight elements share a
/// Philox call with the counter (element / 8 in two words, update, 0); the lower half of a word
/// comes first.
void rounding_halves(std::array<uint32_t, 2> key, uint32_t update, int64_t first, int64_t count,
                     uint16_t* out);

}  // namespace tptrain::optim
