#include "sharding/cuda/fill_normal.h"

#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "base/error.h"
#include "base/text.h"
#include "sharding/cuda/fill_normal_kernel.h"

namespace tptrain::sharding::cuda {

void fill_normal(at::Tensor& out, const ShardSpec& spec, int64_t begin, double std,
                 std::array<uint32_t, 2> key) {
  FillNormal args;
  args.out = out.data_ptr<float>();
  args.count = out.numel();
  args.begin = begin;
  if (!spec.whole()) {
    args.local = spec.end - spec.begin;
    args.global = spec.global_shape[spec.dim];
    args.offset = spec.begin;
    for (size_t dim = spec.dim + 1; dim < spec.global_shape.size(); ++dim)
      args.inner *= spec.global_shape[dim];
  }
  args.std = std;
  args.key[0] = key[0];
  args.key[1] = key[1];
  fill_normal(args, c10::cuda::getCurrentCUDAStream(out.get_device()).stream());
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    throw InternalError(
        problem(cat("initial values of '", spec.name, "': ", cudaGetErrorString(error))));
}

}  // namespace tptrain::sharding::cuda
