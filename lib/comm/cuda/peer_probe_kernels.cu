#include "comm/cuda/flag_access.cuh"
#include "comm/cuda/peer_probe_kernels.h"

namespace tptrain::comm {

namespace {

constexpr int kThreads = 256;

__device__ uint64_t now_ns() {
  uint64_t ns;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
  return ns;
}

// A block for each other rank.
__global__ void __launch_bounds__(kThreads) stores_kernel(ProbeStores args) {
  const int peer = (args.rank + 1 + static_cast<int>(blockIdx.x)) % args.ranks;
  uint32_t* there = args.slots[peer] + args.rank * args.words;
  const uint32_t* from = args.sent + peer * args.words;
  for (int64_t i = threadIdx.x; i < args.words; i += kThreads) there[i] = from[i];
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x == 0) {
    raise(args.flags_there[peer], args.round);
    const uint64_t begin = now_ns();
    while (args.given_up[peer] == 0 &&
           static_cast<int32_t>(look_at(args.flags_here[peer]) - args.round) < 0) {
      if (now_ns() - begin > args.patience_ns) args.given_up[peer] = 1;
      __nanosleep(20);
    }
  }
  __syncthreads();
  const uint32_t* here = args.slots[args.rank] + peer * args.words;
  uint32_t* to = args.came + peer * args.words;
  for (int64_t i = threadIdx.x; i < args.words; i += kThreads) to[i] = __ldcg(here + i);
}

__global__ void __launch_bounds__(kThreads)
    take_kernel(uint32_t* to, const uint32_t* from, int64_t words) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < words; i += stride)
    to[i] = __ldcg(from + i);
}

}  // namespace

void probe_stores(const ProbeStores& args, cudaStream_t stream) {
  if (args.ranks < 2) return;
  stores_kernel<<<static_cast<unsigned>(args.ranks - 1), kThreads, 0, stream>>>(args);
}

void probe_take(uint32_t* to, const uint32_t* from, int64_t words, cudaStream_t stream) {
  constexpr unsigned kBlocks = 64;
  take_kernel<<<kBlocks, kThreads, 0, stream>>>(to, from, words);
}

}  // namespace tptrain::comm
