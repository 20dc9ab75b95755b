// Stochastic rounding of a bf16 master: which random bits an element gets. The sum that uses them
// is in the update: element_loop.cpp on the CPU, cuda/element_update.cu, which draws the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "optim/update_rule.h"

namespace tptrain::optim {

/// Key of a tensor's bits. The update is part of the counter, not of the key: on CUDA only the
/// device knows how many steps were finite.
std::array<uint32_t, 2> rounding_key(uint64_t seed, std::string_view tensor);

/// The 16 bits of elements [begin, end) of the range, for update number `update`.
void fill_rounding_bits(const RoundingSite& site, std::array<uint32_t, 2> key, uint32_t update,
                        int64_t begin, int64_t end, uint16_t* out);

/// A slice as blocks of `local_block` elements that are contiguous in the global tensor as well,
/// one every `global_block` elements there from `global_begin` on: what sharding::runs_of says,
/// without a run for every row of a matrix that is cut along its columns.
struct SliceBlocks {
  int64_t local_block = 1;
  int64_t global_block = 1;
  int64_t global_begin = 0;
};
SliceBlocks blocks_of(const sharding::ShardSpec& spec);

}  // namespace tptrain::optim
