// Cross entropy on a vocabulary slice: a block a row, three passes over the logits in all (largest,
// sum of exponentials, gradient). The exponentials are made twice instead of kept: logits may then
// be bf16, where kept ones would lose their digits.
#include <cmath>
#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

namespace {

constexpr int64_t kIgnored = -100;

template <typename T>
__device__ T* row_of(const Vocab& args) {
  return static_cast<T*>(args.logits) + int64_t{blockIdx.x} * args.vocab;
}

template <typename T, int kWidth>
__global__ void row_max_kernel(Vocab args) {
  const T* row = row_of<T>(args);
  float largest = -INFINITY;
  bool nan = false;  // fmaxf passes over NaN; a row with one must not look like a good one
  for (int64_t i = threadIdx.x * kWidth; i < args.vocab; i += kThreads * kWidth) {
    float x[kWidth];
    load<T, kWidth>(row + i, x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      largest = fmaxf(largest, x[j]);
      nan = nan || isnan(x[j]);
    }
  }
  const bool any = __syncthreads_or(nan) != 0;
  largest = block_max(largest);
  if (threadIdx.x == 0) args.row_max[blockIdx.x] = any ? NAN : largest;
}

template <typename T, int kWidth>
__global__ void sums_kernel(Vocab args) {
  const T* row = row_of<T>(args);
  const float largest = args.row_max[blockIdx.x];
  float sum = 0;
  for (int64_t i = threadIdx.x * kWidth; i < args.vocab; i += kThreads * kWidth) {
    float x[kWidth];
    load<T, kWidth>(row + i, x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum += exponential<T>(x[j] - largest);
  }
  sum = block_sum(sum);
  if (threadIdx.x != 0) return;
  args.sums[blockIdx.x] = sum;
  const int64_t target = args.targets[blockIdx.x];
  const int64_t column = target - args.vocab_begin;
  const bool here = target != kIgnored && column >= 0 && column < args.vocab;
  args.sums[args.tokens + blockIdx.x] = here ? wide(row[column]) - largest : 0.0f;
}

template <typename T, int kWidth>
__global__ void backward_kernel(Vocab args) {
  T* row = row_of<T>(args);
  const int64_t target = args.targets[blockIdx.x];
  if (target == kIgnored) {
    const float zeros[kWidth] = {};
    for (int64_t i = threadIdx.x * kWidth; i < args.vocab; i += kThreads * kWidth)
      store<T, kWidth>(row + i, zeros);
    return;
  }
  const float largest = args.row_max[blockIdx.x];
  const float sum = args.sums[blockIdx.x];
  const float scale = *args.scale;
  float factor = scale / sum;
  if (args.z_loss != 0.0f) factor *= 1.0f + 2.0f * args.z_loss * (largest + logf(sum));
  const int64_t column = target - args.vocab_begin;
  for (int64_t i = threadIdx.x * kWidth; i < args.vocab; i += kThreads * kWidth) {
    float x[kWidth];
    load<T, kWidth>(row + i, x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      x[j] = exponential<T>(x[j] - largest) * factor;
      if (i + j == column) x[j] -= scale;
    }
    store<T, kWidth>(row + i, x);
  }
}

template <typename Launch>
void with_form(const Vocab& args, const Launch& launch) {
  if (args.tokens == 0) return;
  const auto blocks = static_cast<unsigned>(args.tokens);
  if (args.element == Element::bf16) {
    if (moves_in_packs<__nv_bfloat16>(args.vocab, args.logits)) {
      launch(__nv_bfloat16{}, std::integral_constant<int, 8>{}, blocks);
    } else {
      launch(__nv_bfloat16{}, std::integral_constant<int, 1>{}, blocks);
    }
  } else if (moves_in_packs<float>(args.vocab, args.logits)) {
    launch(float{}, std::integral_constant<int, 4>{}, blocks);
  } else {
    launch(float{}, std::integral_constant<int, 1>{}, blocks);
  }
}

}  // namespace

void vocab_row_max(const Vocab& args, Stream stream) {
  with_form(args, [&](auto type, auto width, unsigned blocks) {
    row_max_kernel<decltype(type), width>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

void vocab_sums(const Vocab& args, Stream stream) {
  with_form(args, [&](auto type, auto width, unsigned blocks) {
    sums_kernel<decltype(type), width>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

void vocab_backward(const Vocab& args, Stream stream) {
  with_form(args, [&](auto type, auto width, unsigned blocks) {
    backward_kernel<decltype(type), width>
        <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
  });
}

}  // namespace tptrain::kernels::cuda
