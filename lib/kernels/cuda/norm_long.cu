// RMSNorm and LayerNorm of rows that are longer than a block's registers hold, or do not move in
// loads of 16 bytes: kWidth elements a load, read again from the cache instead of kept.
#include <type_traits>

#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda {

namespace {

/// Over kThreads threads; every thread gets it.
__device__ float block_sum(float value) {
  __shared__ float warps[kThreads / 32];
  value = warp_sum(value);
  __syncthreads();  // the last use of `warps` is over
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) total += warps[i];
  return total;
}

template <typename T, int kWidth, bool kLayer>
__device__ void store_long_output(const NormForward& args, const T* row, int64_t at, float mean,
                                  float inverse) {
  const T* weight = static_cast<const T*>(args.weight);
  const T* bias = static_cast<const T*>(args.bias);
  T* output = static_cast<T*>(args.output) + at;
  for (int64_t i = threadIdx.x * kWidth; i < args.hidden; i += kThreads * kWidth) {
    float x[kWidth], w[kWidth], b[kWidth] = {}, y[kWidth];
    load<T, kWidth>(row + i, x);
    load<T, kWidth>(weight + i, w);
    if (kLayer) load<T, kWidth>(bias + i, b);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) y[j] = normed_output<kLayer>(x[j], mean, inverse, w[j], b[j]);
    store<T, kWidth>(output + i, y);
  }
}

template <typename T, int kWidth, bool kLayer>
__global__ void long_forward_kernel(NormForward args) {
  const int64_t row_index = blockIdx.x;
  const int64_t at = row_index * args.hidden;
  const T* row = static_cast<const T*>(args.x) + at;
  if (args.delta != nullptr) {
    const T* delta = static_cast<const T*>(args.delta) + at;
    T* sum = static_cast<T*>(args.sum) + at;
    for (int64_t i = threadIdx.x * kWidth; i < args.hidden; i += kThreads * kWidth) {
      float a[kWidth], b[kWidth];
      load<T, kWidth>(row + i, a);
      load<T, kWidth>(delta + i, b);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) a[j] += b[j];
      store<T, kWidth>(sum + i, a);
    }
    row = sum;  // each thread reads back what it wrote itself
  }
  float total = 0;
  float squares = 0;
  for (int64_t i = threadIdx.x * kWidth; i < args.hidden; i += kThreads * kWidth) {
    float x[kWidth];
    load<T, kWidth>(row + i, x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      total += x[j];
      squares += x[j] * x[j];
    }
  }
  const float count = static_cast<float>(args.hidden);
  float mean = 0;
  if (kLayer) {
    mean = block_sum(total) / count;
    squares = 0;
    for (int64_t i = threadIdx.x * kWidth; i < args.hidden; i += kThreads * kWidth) {
      float x[kWidth];
      load<T, kWidth>(row + i, x);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) squares += (x[j] - mean) * (x[j] - mean);
    }
  }
  const float inverse = 1.0f / sqrtf(block_sum(squares) / count + args.eps);
  if (threadIdx.x == 0) {
    args.inverse[row_index] = inverse;
    if (kLayer) args.mean[row_index] = mean;
  }
  store_long_output<T, kWidth, kLayer>(args, row, at, mean, inverse);
}

template <typename T, int kWidth, bool kLayer>
__global__ void long_again_kernel(NormForward args) {
  const int64_t row = blockIdx.x;
  const int64_t at = row * args.hidden;
  store_long_output<T, kWidth, kLayer>(args, static_cast<const T*>(args.x) + at, at,
                                       kLayer ? args.mean[row] : 0.0f, args.inverse[row]);
}

/// Gradients of this block's rows, [hidden], twice with LayerNorm, are summed in shared memory;
/// where a block may not have so much of it, in their place in `partial`, which the cache holds.
template <typename T, int kWidth, bool kLayer, bool kShared>
__global__ void long_backward_kernel(NormBackward args) {
  extern __shared__ float shared[];
  const int64_t sums = kLayer ? 2 * args.hidden : args.hidden;
  float* partial = args.partial + blockIdx.x * sums;
  float* weight_sums = kShared ? shared : partial;
  float* bias_sums = weight_sums + args.hidden;
  for (int64_t i = threadIdx.x; i < sums; i += kThreads) weight_sums[i] = 0;
  __syncthreads();
  const T* weight = static_cast<const T*>(args.weight);
  const float count = static_cast<float>(args.hidden);
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t at = row * args.hidden;
    const T* x_row = static_cast<const T*>(args.x) + at;
    const T* grad_row = static_cast<const T*>(args.grad_output) + at;
    const float inverse = args.inverse[row];
    const float mean = kLayer ? args.mean[row] : 0.0f;
    float dot = 0;
    float plain = 0;
    for (int64_t i = threadIdx.x * kWidth; i < args.hidden; i += kThreads * kWidth) {
      float x[kWidth], g[kWidth], w[kWidth];
      load<T, kWidth>(x_row + i, x);
      load<T, kWidth>(grad_row + i, g);
      load<T, kWidth>(weight + i, w);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float normed = (x[j] - mean) * inverse;
        // Each thread owns its columns of the sums.
        weight_sums[i + j] += g[j] * normed;
        if (kLayer) bias_sums[i + j] += g[j];
        dot += g[j] * w[j] * normed;
        plain += g[j] * w[j];
      }
    }
    const float mean_dot = block_sum(dot) / count;
    const float mean_plain = kLayer ? block_sum(plain) / count : 0.0f;
    T* out = static_cast<T*>(args.grad_x) + at;
    for (int64_t i = threadIdx.x * kWidth; i < args.hidden; i += kThreads * kWidth) {
      float x[kWidth], g[kWidth], w[kWidth], extra[kWidth];
      load<T, kWidth>(x_row + i, x);
      load<T, kWidth>(grad_row + i, g);
      load<T, kWidth>(weight + i, w);
      if (args.grad_sum != nullptr)
        load<T, kWidth>(static_cast<const T*>(args.grad_sum) + at + i, extra);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        const float normed = (x[j] - mean) * inverse;
        g[j] = inverse * (g[j] * w[j] - mean_plain - normed * mean_dot);
        if (args.grad_sum != nullptr) g[j] += extra[j];
      }
      store<T, kWidth>(out + i, g);
    }
  }
  if constexpr (kShared) {
    __syncthreads();
    for (int64_t i = threadIdx.x; i < sums; i += kThreads) partial[i] = shared[i];
  }
}

/// launch(T{}, width, layer): the form of one call, as a type and integral constants.
template <typename T, typename Launch>
void with_kind(Loads loads, bool layer, const Launch& launch) {
  const auto with_width = [&](auto width) {
    if (layer) return launch(T{}, width, std::true_type{});
    launch(T{}, width, std::false_type{});
  };
  if (loads == Loads::packs) return with_width(std::integral_constant<int, 16 / sizeof(T)>{});
  with_width(std::integral_constant<int, 1>{});
}
template <typename Launch>
void with_form(Element element, Loads loads, bool layer, const Launch& launch) {
  if (element == Element::bf16) return with_kind<__nv_bfloat16>(loads, layer, launch);
  with_kind<float>(loads, layer, launch);
}

}  // namespace

void long_norm_forward(const NormForward& args, Loads loads, Stream stream) {
  with_form(args.element, loads, args.mean != nullptr, [&](auto type, auto width, auto layer) {
    long_forward_kernel<decltype(type), width, layer>
        <<<static_cast<unsigned>(args.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args);
  });
}

void long_norm_again(const NormForward& args, Loads loads, Stream stream) {
  with_form(args.element, loads, args.mean != nullptr, [&](auto type, auto width, auto layer) {
    long_again_kernel<decltype(type), width, layer>
        <<<static_cast<unsigned>(args.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args);
  });
}

void long_norm_backward(const NormBackward& args, Loads loads, int64_t blocks, Stream stream) {
  with_form(args.element, loads, args.mean != nullptr, [&](auto type, auto width, auto layer) {
    using T = decltype(type);
    const auto bytes = static_cast<size_t>((layer ? 2 : 1) * args.hidden) * sizeof(float);
    if (bytes > static_cast<size_t>(shared_bytes_of_block())) {
      long_backward_kernel<T, width, layer, false>
          <<<static_cast<unsigned>(blocks), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
      return;
    }
    const auto kernel = long_backward_kernel<T, width, layer, true>;
    if (bytes > 48 * 1024)
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(bytes));
    kernel<<<static_cast<unsigned>(blocks), kThreads, bytes, static_cast<cudaStream_t>(stream)>>>(
        args);
  });
}

}  // namespace tptrain::kernels::cuda
