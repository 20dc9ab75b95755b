#include "base/error.h"
#include "sharding/cuda/fill_normal.h"

namespace tptrain::sharding::cuda {

void fill_normal(at::Tensor&, const ShardSpec&, int64_t, double, std::array<uint32_t, 2>) {
  throw InternalError(problem("initial values on a GPU in a build without CUDA"));
}

}  // namespace tptrain::sharding::cuda
