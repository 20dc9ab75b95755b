// The AdamW pass on raw arrays: every element read and written once. Master and moments lie in
// memory as float or Bf16, arithmetic is fp32. No torch, no threads.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/cpu/vector.h"
#include "optim/adamw_constants.h"

namespace tptrain::optim {

using kernels::cpu::Bf16;

template <typename Master, typename Moment>
struct AdamWArrays {
  Master* master = nullptr;
  Moment* exp_avg = nullptr;     // stored rounded to nearest
  Moment* exp_avg_sq = nullptr;  // likewise
  const float* gradient = nullptr;
};

/// Updates elements [begin, end).
void adamw_elements(const AdamWArrays<float, float>& arrays, const AdamWConstants& constants,
                    int64_t begin, int64_t end);
void adamw_elements(const AdamWArrays<float, Bf16>& arrays, const AdamWConstants& constants,
                    int64_t begin, int64_t end);
/// Likewise, and rounds the master stochastically: rounding[i - begin] holds 16 random bits.
void adamw_elements(const AdamWArrays<Bf16, float>& arrays, const AdamWConstants& constants,
                    const uint16_t* rounding, int64_t begin, int64_t end);
void adamw_elements(const AdamWArrays<Bf16, Bf16>& arrays, const AdamWConstants& constants,
                    const uint16_t* rounding, int64_t begin, int64_t end);

/// to[i] = from[i] rounded to nearest.
void narrow_elements(const float* from, Bf16* to, int64_t begin, int64_t end);

/// 16 random bits for each of the global elements [first, first + count): eight elements share a
/// Philox call with the counter (element / 8 in two words, update, 0); the lower half of a word
/// comes first.
void rounding_halves(std::array<uint32_t, 2> key, uint32_t update, int64_t first, int64_t count,
                     uint16_t* out);

}  // namespace tptrain::optim
