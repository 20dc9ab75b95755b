// Stochastic rounding of a bf16 master: which random bits an element gets, as a loop for the CPU
// and as tensor arithmetic for CUDA, which give the same bits. The sum that uses them is in the
// update.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string_view>

#include "optim/adamw.h"

namespace tptrain::optim {

/// Key of a tensor's bits. The update is part of the counter, not of the key: on CUDA only the
/// device knows how many steps were finite.
std::array<uint32_t, 2> rounding_key(uint64_t seed, std::string_view tensor);

/// The 16 bits of elements [begin, end) of the range, for update number `update`.
void fill_rounding_bits(const RoundingSite& site, std::array<uint32_t, 2> key, uint32_t update,
                        int64_t begin, int64_t end, uint16_t* out);

/// The same as int32 in [0, 2^16) [end - begin], on the device of `updates` (a scalar, read there).
at::Tensor rounding_bits(const RoundingSite& site, std::array<uint32_t, 2> key,
                         const at::Tensor& updates, int64_t begin, int64_t end);

/// fp32 -> bf16: the bits are added below the last bf16 place, the rest is cut off; infinity and
/// NaN stay.
at::Tensor round_stochastically(const at::Tensor& values, const at::Tensor& bits);

}  // namespace tptrain::optim
