// Cross entropy on a vocabulary slice: a block a row. One pass over the logits makes the row's
// maximum and its sum of exponentials (relative to the largest logit a thread has met so far), a
// second one the gradient. The exponentials are made twice instead of kept: logits may then be
// bf16, where kept ones would lose their digits. Source of the one-pass sum: Milakov & Gimelshein,
// "Online normalizer calculation for softmax", 2018.
//
// Rows begin where loads of 16 bytes may, but need not end there: what is left of a row moves
// element by element.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

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

  // Lane 0 and thread 0 are the ones whose sums count.
  __shared__ OnlineSum warps[kRowThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    OnlineSum other;
    other.largest = __shfl_down_sync(~0u, own.largest, offset);
    other.sum = __shfl_down_sync(~0u, own.sum, offset);
    own = joined<T>(own, other);
  }
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = own;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  own = threadIdx.x < kRowThreads / 32 ? warps[threadIdx.x] : nothing_met();
#pragma unroll
  for (int offset = kRowThreads / 64; offset > 0; offset >>= 1) {
    OnlineSum other;
    other.largest = __shfl_down_sync(~0u, own.largest, offset);
    other.sum = __shfl_down_sync(~0u, own.sum, offset);
    own = joined<T>(own, other);
  }
  if (threadIdx.x != 0) return;
  // A row with NaN, or with +inf, must not look like a good one to the maximum over the slices.
  const float largest = isnan(own.sum) ? NAN : own.largest;
  args.row_max[token] = largest;
  args.sums[token] = own.sum;
  const int64_t target = args.targets[token];
  args.sums[args.tokens + token] =
      lies_here(target, args) ? wide(row[target - args.vocab_begin]) - largest : 0.0f;
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
  const float sum = args.sums[token];
  RowGradient of;
  of.largest = args.row_max[token];
  of.scale = *args.scale;
  of.factor = of.scale / sum;
  if (args.z_loss != 0.0f) of.factor *= 1.0f + 2.0f * args.z_loss * (of.largest + logf(sum));
  of.column = lies_here(target, args) ? static_cast<int>(target - args.vocab_begin) : -1;
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

// --- The sums of the loss.

constexpr int kSumThreads = 512;
constexpr int64_t kTokensABlock = 4096;

/// Over kSumThreads threads, in a fixed order; thread 0 gets it.
__device__ double block_sum(double value) {
  __shared__ double warps[kSumThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_down_sync(~0u, value, offset);
  __syncthreads();  // the last use of `warps` is over
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSumThreads / 32; ++i) total += warps[i];
  }
  return total;
}

__global__ void __launch_bounds__(kSumThreads) cross_entropy_kernel(CrossEntropySums args) {
  const int64_t begin = blockIdx.x * kTokensABlock;
  const int64_t end = begin + kTokensABlock < args.tokens ? begin + kTokensABlock : args.tokens;
  double loss = 0;
  double squares = 0;
  for (int64_t t = begin + threadIdx.x; t < end; t += kSumThreads) {
    if (args.targets[t] == kIgnored) continue;
    const auto log_sum = static_cast<double>(logf(args.sums[t]));
    const double logsumexp = static_cast<double>(args.row_max[t]) + log_sum;
    loss += log_sum - static_cast<double>(args.sums[args.tokens + t]);
    squares += logsumexp * logsumexp;
  }
  loss = block_sum(loss);
  squares = block_sum(squares);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    args.result[0] = static_cast<float>(loss);
    args.result[1] = static_cast<float>(squares);
    return;
  }
  args.partial[2 * blockIdx.x] = loss;
  args.partial[2 * blockIdx.x + 1] = squares;
}

__global__ void join_cross_entropy_kernel(CrossEntropySums args, int64_t blocks) {
  double sum = 0;
  for (int64_t block = 0; block < blocks; ++block) sum += args.partial[2 * block + threadIdx.x];
  args.result[threadIdx.x] = static_cast<float>(sum);
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

int64_t cross_entropy_blocks(int64_t tokens) {
  return std::max<int64_t>((tokens + kTokensABlock - 1) / kTokensABlock, 1);
}

void cross_entropy_sums(const CrossEntropySums& args, Stream stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t blocks = cross_entropy_blocks(args.tokens);
  cross_entropy_kernel<<<static_cast<unsigned>(blocks), kSumThreads, 0, on>>>(args);
  if (blocks > 1) join_cross_entropy_kernel<<<1, 2, 0, on>>>(args, blocks);
}

}  // namespace tptrain::kernels::cuda
