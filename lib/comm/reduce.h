// Element-wise sums and maxima of several arrays, in the order given: the arithmetic of the CPU
// backends. No communication here, no torch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/reduce_op.h"

namespace tptrain::comm {

enum class Element { fp32, bf16, int64 };

constexpr int64_t bytes_of(Element element) {
  return element == Element::bf16 ? 2 : element == Element::fp32 ? 4 : 8;
}

/// output[i] = sources[0][i] op sources[1][i] op ... op sources[n-1][i], from left to right; bf16
/// is summed in fp32 and rounded once, to nearest even. output may be one of the sources. The
/// maximum of a NaN is unspecified.
void reduce_elements(void* output, const void* const* sources, int source_count, int64_t count,
                     Element element, ReduceOp op);

}  // namespace tptrain::comm
