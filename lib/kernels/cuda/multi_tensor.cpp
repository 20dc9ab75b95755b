#include "kernels/cuda/multi_tensor.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::kernels::cuda {

int64_t elements_before_packs(std::initializer_list<Address> arrays) {
  int64_t before = -1;
  for (const Address& array : arrays) {
    const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(array.data));
    const int64_t here = (kPack - address / array.element_bytes % kPack) % kPack;
    if (address % array.element_bytes != 0 || (before >= 0 && here != before)) return 0;
    before = here;
  }
  return std::max<int64_t>(before, 0);
}

void append_chunks(std::vector<Chunk>& chunks, int64_t tensor, int64_t numel,
                   int64_t chunk_elements, int64_t before_packs) {
  if (tensor > INT32_MAX || chunk_elements > INT32_MAX || chunk_elements % kPack != 0) {
    throw InternalError(problem(cat("chunks of ", chunk_elements, " elements of tensor ", tensor))
                            .must("be a multiple of 4 below 2^31, as the tensor's number"));
  }
  int64_t end = before_packs > 0 ? std::min(before_packs, numel) : std::min(chunk_elements, numel);
  for (int64_t begin = 0; begin < numel; begin = end, end = std::min(end + chunk_elements, numel)) {
    chunks.push_back({begin, static_cast<int32_t>(tensor), static_cast<int32_t>(end - begin)});
  }
}

}  // namespace tptrain::kernels::cuda
