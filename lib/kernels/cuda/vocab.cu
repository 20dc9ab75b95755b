// Cross entropy on a vocabulary slice: a block a row. One pass over the logits makes the row's
// maximum and its sum of exponentials (relative to the largest logit a thread has met so far), a
// second one the gradient. The exponentials are made twice instead of kept: logits may then be
// bf16, where kept ones would lose their digits. Source of the one-pass sum: Milakov & Gimelshein,
// "Online normalizer calculation for softmax", 2018.
//
// Rows begin where loads of 16 bytes may, but need not end there: what is left of a row moves
// element by element.
//
// With one slice nothing comes between the two passes: there the row waits in the shared memory of
// a few blocks that run at once (a cluster), and is read once.
#include <cooperative_groups.h>
#include <cuda_pipeline_primitives.h>

#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda {

namespace {

constexpr int64_t kIgnored = -100;
constexpr int kRowThreads = 512;
constexpr int kPacksAtOnce = 4;  // loads in flight of a thread

__device__ bool lies_here(int64_t target, const Vocab& args) {
  const int64_t column = target - args.vocab_begin;
  return target != kIgnored && column >= 0 && column < args.vocab;
}

/// Sum of e^(x - largest) over what was met, relative to the largest of it.
struct OnlineSum {
  float largest;
  float sum;
};
__device__ OnlineSum nothing_met() { return {-INFINITY, 0.0f}; }

// Relative to a row of nothing but -inf, differences would be NaN; its terms are zeros instead.
__device__ float base_of(float largest) { return largest == -INFINITY ? 0.0f : largest; }

template <typename T>
__device__ OnlineSum joined(const OnlineSum& a, const OnlineSum& b) {
  const float largest = fmaxf(a.largest, b.largest);
  const float base = base_of(largest);
  return {largest,
          a.sum * exponential<T>(a.largest - base) + b.sum * exponential<T>(b.largest - base)};
}

template <typename T, int kWidth>
__device__ void meet(OnlineSum& sum, const Pack<T, kWidth>& pack) {
  float x[kWidth];
  float largest = sum.largest;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    x[j] = wide(pack.values[j]);
    largest = fmaxf(largest, x[j]);  // passes over NaN, which the sum then holds
  }
  const float base = base_of(largest);
  if (largest > sum.largest) {
    sum.sum *= exponential<T>(sum.largest - base);
    sum.largest = largest;
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) sum.sum += exponential<T>(x[j] - base);
}

/// Over the first kLanes of a warp; lane 0's counts.
template <typename T, int kLanes>
__device__ OnlineSum joined_lanes(OnlineSum own) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset >>= 1) {
    OnlineSum other;
    other.largest = __shfl_down_sync(~0u, own.largest, offset);
    other.sum = __shfl_down_sync(~0u, own.sum, offset);
    own = joined<T>(own, other);
  }
  return own;
}
constexpr int kRowWarps = kRowThreads / 32;
/// Of one warp, from what every warp of the row met.
template <typename T>
__device__ OnlineSum joined_warps(const OnlineSum* warps) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return joined_lanes<T, kRowWarps>(lane < kRowWarps ? warps[lane] : nothing_met());
}

// A row with NaN, or with +inf, must not look like a good one to the maximum over the slices.
__device__ float row_max_of(const OnlineSum& row) { return isnan(row.sum) ? NAN : row.largest; }

/// From the row as it was.
template <typename T>
__device__ float target_logit(const Vocab& args, const T* row, int64_t token) {
  const int64_t target = args.targets[token];
  return lies_here(target, args) ? wide(row[target - args.vocab_begin]) : NAN;
}
/// By one thread. `logit`: of target_logit.
__device__ void store_statistics(const Vocab& args, int64_t token, const OnlineSum& row,
                                 float logit) {
  const float largest = row_max_of(row);
  args.row_max[token] = largest;
  args.sums[token] = row.sum;
  args.sums[args.tokens + token] = lies_here(args.targets[token], args) ? logit - largest : 0.0f;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowThreads) statistics_kernel(Vocab args) {
  const int64_t token = blockIdx.x;
  const T* row = static_cast<const T*>(args.logits) + token * args.stride;
  const int vocab = static_cast<int>(args.vocab);
  const int whole = vocab / kWidth * kWidth;
  constexpr int kStep = kRowThreads * kWidth;
  OnlineSum own = nothing_met();
  int i = threadIdx.x * kWidth;
  for (; i + (kPacksAtOnce - 1) * kStep < whole; i += kPacksAtOnce * kStep) {
    Pack<T, kWidth> packs[kPacksAtOnce];
#pragma unroll
    for (int p = 0; p < kPacksAtOnce; ++p) packs[p] = load_pack<T, kWidth>(row + i + p * kStep);
#pragma unroll
    for (int p = 0; p < kPacksAtOnce; ++p) meet<T, kWidth>(own, packs[p]);
  }
  for (; i < whole; i += kStep) meet<T, kWidth>(own, load_pack<T, kWidth>(row + i));
  if (whole + static_cast<int>(threadIdx.x) < vocab)
    meet<T, 1>(own, load_pack<T, 1>(row + whole + threadIdx.x));

  __shared__ OnlineSum warps[kRowWarps];
  own = joined_lanes<T, 32>(own);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = own;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  own = joined_warps<T>(warps);
  if (threadIdx.x == 0) store_statistics(args, token, own, target_logit(args, row, token));
}

template <typename T>
__global__ void rescale_kernel(Vocab args) {
  const int64_t token = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (token >= args.tokens) return;
  const float largest = args.row_max[token];
  args.sums[token] *= expf(args.slice_max[token] - largest);
  const int64_t target = args.targets[token];
  if (!lies_here(target, args)) return;
  const T* row = static_cast<const T*>(args.logits) + token * args.stride;
  args.sums[args.tokens + token] = wide(row[target - args.vocab_begin]) - largest;
}

/// What every element of a row's gradient takes.
struct RowGradient {
  float largest;
  float factor;
  float scale;
  int column;  // of the target; -1: in another slice

  __device__ RowGradient(const Vocab& args, int64_t target, float row_max, float sum)
      : largest(row_max), factor(*args.scale / sum), scale(*args.scale) {
    if (args.z_loss != 0.0f) factor *= 1.0f + 2.0f * args.z_loss * (largest + logf(sum));
    column = lies_here(target, args) ? static_cast<int>(target - args.vocab_begin) : -1;
  }
};

template <typename T, int kWidth>
__device__ void store_gradient(const RowGradient& of, const Pack<T, kWidth>& logits, T* to, int i) {
  float x[kWidth];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    x[j] = exponential<T>(wide(logits.values[j]) - of.largest) * of.factor;
    if (i + j == of.column) x[j] -= of.scale;
  }
  store<T, kWidth>(to, x);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowThreads) backward_kernel(Vocab args) {
  const int64_t token = blockIdx.x;
  T* row = static_cast<T*>(args.logits) + token * args.stride;
  const int vocab = static_cast<int>(args.vocab);
  const int whole = vocab / kWidth * kWidth;
  const int left = whole + static_cast<int>(threadIdx.x);
  constexpr int kStep = kRowThreads * kWidth;
  int i = threadIdx.x * kWidth;
  // Between the rows: products take it along.
  for (int64_t beyond = vocab + threadIdx.x; beyond < args.stride; beyond += kRowThreads)
    row[beyond] = narrow<T>(0.0f);
  const int64_t target = args.targets[token];
  if (target == kIgnored) {
    for (; i < whole; i += kStep) store_pack(row + i, zero_pack<T, kWidth>());
    if (left < vocab) row[left] = narrow<T>(0.0f);
    return;
  }
  const RowGradient of(args, target, args.row_max[token], args.sums[token]);
  for (; i + (kPacksAtOnce - 1) * kStep < whole; i += kPacksAtOnce * kStep) {
    Pack<T, kWidth> packs[kPacksAtOnce];  // all loads before the first store
#pragma unroll
    for (int p = 0; p < kPacksAtOnce; ++p) packs[p] = load_pack<T, kWidth>(row + i + p * kStep);
#pragma unroll
    for (int p = 0; p < kPacksAtOnce; ++p)
      store_gradient<T, kWidth>(of, packs[p], row + i + p * kStep, i + p * kStep);
  }
  for (; i < whole; i += kStep)
    store_gradient<T, kWidth>(of, load_pack<T, kWidth>(row + i), row + i, i);
  if (left < vocab) store_gradient<T, 1>(of, load_pack<T, 1>(row + left), row + left, left);
}

// --- Both passes in one.

constexpr int kMostBlocksOfRow = 8;  // of a cluster, wherever there are clusters
// Several rows on a multiprocessor, one of which is read while another is written.
constexpr int64_t kRowBytesOfBlock = 40 << 10;

int64_t packs_of_thread(int64_t vocab, int64_t width) {
  return (vocab / width + kRowThreads - 1) / kRowThreads;
}
/// Of a row's slice in a block of a cluster of `blocks`.
int64_t row_bytes(const Vocab& args, int64_t blocks) {
  const int64_t width = args.element == Element::bf16 ? 8 : 4;
  return packs_of_thread(args.vocab, width) * kRowThreads / blocks * 16;
}
int64_t blocks_of_row(const Vocab& args) {
  int64_t blocks = 1;
  while (blocks < kMostBlocksOfRow && row_bytes(args, blocks) > kRowBytesOfBlock) blocks *= 2;
  return blocks;
}

// A cluster a row, kRowThreads threads in all. Thread t meets what thread t of statistics_kernel
// does, in its order, and joins likewise: the results are those of the two kernels, bit for bit.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kRowThreads) both_kernel(Vocab args) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ uint4 kept[];  // [packs_of_thread, threads of the block]
  __shared__ OnlineSum warps[kRowWarps];
  const cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const auto blocks = static_cast<int>(cluster.num_blocks());
  const auto threads = static_cast<int>(blockDim.x);
  const int thread =
      static_cast<int>(cluster.block_rank()) * threads + static_cast<int>(threadIdx.x);
  const int64_t token = blockIdx.x / blocks;
  T* row = static_cast<T*>(args.logits) + token * args.stride;
  const int vocab = static_cast<int>(args.vocab);
  const int whole = vocab / kWidth * kWidth;
  const int left = whole + thread;
  constexpr int kStep = kRowThreads * kWidth;

  uint4* own_packs = kept + threadIdx.x;
  int place = 0;
  for (int i = thread * kWidth; i < whole; i += kStep, place += threads)
    __pipeline_memcpy_async(own_packs + place, row + i, sizeof(uint4));
  __pipeline_commit();
  const Pack<T, 1> last = left < vocab ? load_pack<T, 1>(row + left) : zero_pack<T, 1>();
  const int64_t target = args.targets[token];
  const float logit = thread == 0 ? target_logit(args, row, token) : 0.0f;
  // The others have begun: their shared memory may be written to. Nothing else is waited for.
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;");
  __pipeline_wait_prior(0);  // a thread reads what it copied itself

  const auto kept_pack = [&](int at) {
    return *reinterpret_cast<const Pack<T, kWidth>*>(own_packs + at);
  };
  OnlineSum own = nothing_met();
  place = 0;
  for (int i = thread * kWidth; i < whole; i += kStep, place += threads)
    meet<T, kWidth>(own, kept_pack(place));
  if (left < vocab) meet<T, 1>(own, last);
  own = joined_lanes<T, 32>(own);
  if (threadIdx.x % 32 == 0) {
    for (int block = 0; block < blocks; ++block)
      *cluster.map_shared_rank(warps + thread / 32, block) = own;
  }
  cluster.sync();
  own = joined_warps<T>(warps);
  own.largest = __shfl_sync(~0u, own.largest, 0);
  own.sum = __shfl_sync(~0u, own.sum, 0);
  if (thread == 0) store_statistics(args, token, own, logit);

  for (int64_t beyond = vocab + thread; beyond < args.stride; beyond += kRowThreads)
    row[beyond] = narrow<T>(0.0f);
  place = 0;
  if (target == kIgnored) {
    for (int i = thread * kWidth; i < whole; i += kStep)
      store_pack(row + i, zero_pack<T, kWidth>());
    if (left < vocab) row[left] = narrow<T>(0.0f);
    return;
  }
  const RowGradient of(args, target, row_max_of(own), own.sum);
  for (int i = thread * kWidth; i < whole; i += kStep, place += threads)
    store_gradient<T, kWidth>(of, kept_pack(place), row + i, i);
  if (left < vocab) store_gradient<T, 1>(of, last, row + left, left);
#endif
}

template <typename T, int kWidth>
void launch_both(const Vocab& args, cudaStream_t stream) {
  const int64_t blocks = blocks_of_row(args), bytes = row_bytes(args, blocks);
  constexpr int64_t kWithoutAsking = 48 << 10;
  if (bytes > kWithoutAsking) {
    // Whether it refuses, the launch tells.
    static_cast<void>(cudaFuncSetAttribute(both_kernel<T, kWidth>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(bytes)));
  }
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(args.tokens * blocks));
  config.blockDim = dim3(static_cast<unsigned>(kRowThreads / blocks));
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  static_cast<void>(cudaLaunchKernelEx(&config, both_kernel<T, kWidth>, args));
}

/// launch(T{}, width) where rows begin at 16 bytes, wherever they end.
template <typename Launch>
void with_rows(const Vocab& args, const Launch& launch) {
  if (args.tokens == 0) return;
  with_packs(
      args.element,
      [&](auto element) { return moves_in_packs<decltype(element)>(args.stride, args.logits); },
      launch);
}

}  // namespace

void vocab_statistics(const Vocab& args, Stream stream) {
  with_rows(args, [&](auto element, auto width) {
    statistics_kernel<decltype(element), width>
        <<<static_cast<unsigned>(args.tokens), kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args);
  });
}

void vocab_rescale(const Vocab& args, Stream stream) {
  if (args.tokens == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const auto blocks = static_cast<unsigned>((args.tokens + kThreads - 1) / kThreads);
  if (args.element == Element::bf16) {
    rescale_kernel<__nv_bfloat16><<<blocks, kThreads, 0, on>>>(args);
  } else {
    rescale_kernel<float><<<blocks, kThreads, 0, on>>>(args);
  }
}

void vocab_backward(const Vocab& args, Stream stream) {
  with_rows(args, [&](auto element, auto width) {
    backward_kernel<decltype(element), width>
        <<<static_cast<unsigned>(args.tokens), kRowThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args);
  });
}

bool takes_vocab_both(const Vocab& args) {
  constexpr int kClusters = 90;  // capability
  const bool packs = args.element == Element::bf16
                         ? moves_in_packs<__nv_bfloat16>(args.stride, args.logits)
                         : moves_in_packs<float>(args.stride, args.logits);
  constexpr int64_t kOfWarps = 1 << 10;
  return packs && capability() >= kClusters &&
         row_bytes(args, blocks_of_row(args)) + kOfWarps <= shared_bytes_of_block();
}

void vocab_both(const Vocab& args, Stream stream) {
  if (args.tokens == 0) return;
  if (args.element == Element::bf16) {
    launch_both<__nv_bfloat16, 8>(args, static_cast<cudaStream_t>(stream));
  } else {
    launch_both<float, 4>(args, static_cast<cudaStream_t>(stream));
  }
}

}  // namespace tptrain::kernels::cuda
