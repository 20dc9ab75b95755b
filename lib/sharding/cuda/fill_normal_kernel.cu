// A thread an element: it draws the pair and takes its half, so that no neighbour need be asked
// where a slice cuts a pair in two.
#include <algorithm>

#include "random/box_muller.h"
#include "random/philox.cuh"
#include "sharding/cuda/fill_normal_kernel.h"

namespace tptrain::sharding::cuda {

namespace {

constexpr int kThreads = 256;

__global__ void fill_kernel(FillNormal args) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < args.count; i += stride) {
    const int64_t element = args.begin + i;
    const int64_t row = element / args.inner;  // of [outer * local]
    const int64_t outer = row / args.local;
    const int64_t index =
        (outer * args.global + args.offset + row % args.local) * args.inner + element % args.inner;
    const auto pair = static_cast<uint64_t>(index) / 2;
    const uint4 words = random::philox_rounds(
        make_uint4(static_cast<uint32_t>(pair), static_cast<uint32_t>(pair >> 32), 0, 0),
        args.key[0], args.key[1]);
    const random::NormalPair normal =
        random::box_muller(static_cast<uint64_t>(words.x) | static_cast<uint64_t>(words.y) << 32,
                           static_cast<uint64_t>(words.z) | static_cast<uint64_t>(words.w) << 32);
    args.out[i] =
        static_cast<float>(random::exact::mul(args.std, index % 2 == 0 ? normal.even : normal.odd));
  }
}

}  // namespace

void fill_normal(const FillNormal& args, void* stream) {
  if (args.count == 0) return;
  const int64_t blocks = std::min<int64_t>((args.count + kThreads - 1) / kThreads, 1 << 16);
  fill_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      args);
}

}  // namespace tptrain::sharding::cuda
