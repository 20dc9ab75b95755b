#include <algorithm>

#include "comm/cuda/sum_pieces.h"
#include "kernels/cuda/device.cuh"

namespace tptrain::comm {

namespace {

using kernels::cuda::kThreads;

template <typename T, int kWidth>
__global__ void sum_kernel(SumPieces args) {
  const int64_t stride = int64_t{gridDim.x} * kThreads * kWidth;
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  for (int64_t i = first; i < args.count; i += stride) {
    float total[kWidth];
    kernels::cuda::load<T, kWidth>(static_cast<const T*>(args.terms[0]) + i, total);
    for (int piece = 1; piece < args.pieces; ++piece) {
      float term[kWidth];
      kernels::cuda::load<T, kWidth>(static_cast<const T*>(args.terms[piece]) + i, term);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) total[j] += term[j];
    }
    kernels::cuda::store<T, kWidth>(static_cast<T*>(args.total) + i, total);
  }
}

template <typename T, int kWidth>
void launch(const SumPieces& args, cudaStream_t stream) {
  const int64_t blocks = (args.count / kWidth + kThreads - 1) / kThreads;
  sum_kernel<T, kWidth>
      <<<static_cast<unsigned>(std::min<int64_t>(blocks, 4096)), kThreads, 0, stream>>>(args);
}

}  // namespace

void sum_pieces(const SumPieces& args, cudaStream_t stream) {
  if (args.count == 0) return;
  bool packs =
      reinterpret_cast<uintptr_t>(args.total) % 16 == 0 && args.count % (args.bf16 ? 8 : 4) == 0;
  for (int i = 0; i < args.pieces; ++i)
    packs = packs && reinterpret_cast<uintptr_t>(args.terms[i]) % 16 == 0;
  if (args.bf16) {
    packs ? launch<__nv_bfloat16, 8>(args, stream) : launch<__nv_bfloat16, 1>(args, stream);
  } else {
    packs ? launch<float, 4>(args, stream) : launch<float, 1>(args, stream);
  }
}

}  // namespace tptrain::comm
