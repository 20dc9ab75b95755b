#include <algorithm>

#include "comm/cuda/direct.h"
#include "comm/cuda/flag_access.cuh"
#include "kernels/cuda/device.cuh"

namespace tptrain::comm {

namespace {

constexpr int kDirectThreads = 512;

// Elements of 16 bytes; a block's are the same on every rank.
template <typename T>
__global__ void __launch_bounds__(kDirectThreads) direct_kernel(Direct args) {
  constexpr int kWidth = 16 / sizeof(T);
  DirectControl* own = args.controls[args.rank];
  const uint32_t call = look_at(&own->calls);
  const int64_t slot = (call & 1) * args.slot_bytes;
  const int64_t packs = args.piece_bytes / 16;
  const int64_t stride = int64_t{gridDim.x} * kDirectThreads;
  const int64_t first = int64_t{blockIdx.x} * kDirectThreads + threadIdx.x;
  const auto* input = static_cast<const uint4*>(args.input);
  const bool scatters = args.call == DirectCall::reduce_scatter;

  for (int step = 1; step < args.ranks; ++step) {
    const int peer = (args.rank + step) % args.ranks;
    auto* there = reinterpret_cast<uint4*>(args.slots[peer] + slot + args.rank * args.piece_bytes);
    const uint4* from = input + (scatters ? peer * packs : 0);
    for (int64_t i = first; i < packs; i += stride) there[i] = from[i];
  }
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x < args.ranks && static_cast<int>(threadIdx.x) != args.rank) {
    raise(&args.controls[threadIdx.x]->flags[args.rank][blockIdx.x], call + 1);
    const uint32_t* flag = &own->flags[threadIdx.x][blockIdx.x];
    while (static_cast<int32_t>(look_at(flag) - (call + 1)) < 0) __nanosleep(20);
  }
  __syncthreads();

  const auto* received = reinterpret_cast<const uint4*>(args.slots[args.rank] + slot);
  auto* output = static_cast<uint4*>(args.output);
  for (int64_t i = first; i < packs; i += stride) {
    if (args.call == DirectCall::all_gather) {
      for (int rank = 0; rank < args.ranks; ++rank)
        output[rank * packs + i] =
            rank == args.rank ? input[i] : __ldcg(&received[rank * packs + i]);
      continue;
    }
    float sums[kWidth];
    for (int rank = 0; rank < args.ranks; ++rank) {
      const uint4 term = rank != args.rank ? __ldcg(&received[rank * packs + i])
                                           : input[(scatters ? rank * packs : 0) + i];
      const auto* values = reinterpret_cast<const T*>(&term);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float value = kernels::cuda::wide(values[j]);
        sums[j] = rank == 0                  ? value
                  : args.op == DirectOp::sum ? sums[j] + value
                                             : fmaxf(sums[j], value);
      }
    }
    kernels::cuda::store<T, kWidth>(reinterpret_cast<T*>(output + i), sums);
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  // The last block to end counts the call: every block has read the count by then.
  if (atomicAdd(&own->finished, 1u) + 1 == gridDim.x) {
    own->finished = 0;
    __threadfence();
    own->calls = call + 1;
  }
}

}  // namespace

void direct(const Direct& args, cudaStream_t stream) {
  const int64_t packs = args.piece_bytes / 16;
  if (packs == 0) return;
  const int64_t blocks =
      std::clamp<int64_t>((packs + kDirectThreads - 1) / kDirectThreads, 1, kMostDirectBlocks);
  if (args.element == DirectElement::bf16) {
    direct_kernel<__nv_bfloat16>
        <<<static_cast<unsigned>(blocks), kDirectThreads, 0, stream>>>(args);
  } else {
    direct_kernel<float><<<static_cast<unsigned>(blocks), kDirectThreads, 0, stream>>>(args);
  }
}

}  // namespace tptrain::comm
