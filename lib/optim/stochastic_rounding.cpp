#include "optim/stochastic_rounding.h"

#include "base/text.h"
#include "optim/element_loop.h"
#include "random/philox.h"

namespace tptrain::optim {

std::array<uint32_t, 2> rounding_key(uint64_t seed, std::string_view tensor) {
  return random::philox_key(seed, cat("rounding/", tensor));
}

void fill_rounding_bits(const RoundingSite& site, std::array<uint32_t, 2> key, uint32_t update,
                        int64_t begin, int64_t end, uint16_t* out) {
  for (const sharding::Run& run :
       sharding::runs_of(site.spec, site.begin + begin, site.begin + end)) {
    rounding_halves(key, update, run.global_begin, run.count, out);
    out += run.count;
  }
}

SliceBlocks blocks_of(const sharding::ShardSpec& spec) {
  if (spec.whole()) return {spec.local_numel(), spec.global_numel(), 0};
  int64_t inner = 1;
  for (size_t d = static_cast<size_t>(spec.dim) + 1; d < spec.global_shape.size(); ++d)
    inner *= spec.global_shape[d];
  return {.local_block = (spec.end - spec.begin) * inner,
          .global_block = spec.global_shape[static_cast<size_t>(spec.dim)] * inner,
          .global_begin = spec.begin * inner};
}

}  // namespace tptrain::optim
