// RMSNorm and LayerNorm: a block a row forward; backward a few hundred blocks that walk the rows
// and keep their share of the weights' gradients, which a second launch adds up in order.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

namespace {

template <typename T, int kWidth, bool kLayer>
__device__ void write_output(const NormForward& args, const T* row, int64_t at, float mean,
                             float inverse) {
  const T* weight = static_cast<const T*>(args.weight);
  const T* bias = static_cast<const T*>(args.bias);
  T* output = static_cast<T*>(args.output) + at;
  for (int64_t i = threadIdx.x * kWidth; i < args.hidden; i += kThreads * kWidth) {
    float x[kWidth], w[kWidth], b[kWidth], y[kWidth];
    load<T, kWidth>(row + i, x);
    load<T, kWidth>(weight + i, w);
    if (kLayer) load<T, kWidth>(bias + i, b);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      y[j] = kLayer ? (x[j] - mean) * inverse * w[j] + b[j] : x[j] * inverse * w[j];
    store<T, kWidth>(output + i, y);
  }
}

template <typename T, int kWidth, bool kLayer>
__global__ void forward_kernel(NormForward args) {
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
    squares = 0;  // about the mean: a difference of large squares would lose the variance
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
  write_output<T, kWidth, kLayer>(args, row, at, mean, inverse);
}

template <typename T, int kWidth, bool kLayer>
__global__ void again_kernel(NormForward args) {
  const int64_t row = blockIdx.x;
  const int64_t at = row * args.hidden;
  write_output<T, kWidth, kLayer>(args, static_cast<const T*>(args.x) + at, at,
                                  kLayer ? args.mean[row] : 0.0f, args.inverse[row]);
}

template <typename T, int kWidth, bool kLayer>
__global__ void backward_kernel(NormBackward args) {
  extern __shared__ float
      shared[];  // [hidden], twice with LayerNorm: gradients of this block's rows
  float* weight_sums = shared;
  float* bias_sums = shared + args.hidden;
  const int64_t sums = kLayer ? 2 * args.hidden : args.hidden;
  for (int64_t i = threadIdx.x; i < sums; i += kThreads) shared[i] = 0;
  __syncthreads();
  const T* weight = static_cast<const T*>(args.weight);
  const float count = static_cast<float>(args.hidden);
  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    const int64_t at = row * args.hidden;
    const T* x_row = static_cast<const T*>(args.x) + at;
    const T* grad_row = static_cast<const T*>(args.grad_output) + at;
    const float inverse = args.inverse[row];
    const float mean = kLayer ? args.mean[row] : 0.0f;
    float dot = 0;    // of the gradient by the normed row, with the normed row
    float plain = 0;  // its sum
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
  __syncthreads();
  float* partial = args.partial + blockIdx.x * sums;
  for (int64_t i = threadIdx.x; i < sums; i += kThreads) partial[i] = shared[i];
}

// A warp a column would read across rows; 32 columns x 8 rows of threads read whole lines.
__global__ void add_partials_kernel(const float* partial, int64_t blocks, int64_t stride,
                                    int64_t hidden, float* total) {
  __shared__ float rows[8][33];
  const int64_t column = blockIdx.x * 32 + threadIdx.x;
  float sum = 0;
  if (column < hidden) {
    for (int64_t block = threadIdx.y; block < blocks; block += 8)
      sum += partial[block * stride + column];
  }
  rows[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= hidden) return;
  sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += rows[i][threadIdx.x];
  total[column] += sum;
}

template <typename T, int kWidth, bool kLayer>
void launch_backward(const NormBackward& args, cudaStream_t stream) {
  const int64_t sums = kLayer ? 2 * args.hidden : args.hidden;
  const auto bytes = static_cast<size_t>(sums) * sizeof(float);
  const auto kernel = backward_kernel<T, kWidth, kLayer>;
  if (bytes > 48 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                         static_cast<int>(bytes));
  const int64_t blocks = norm_backward_blocks(args.rows);
  kernel<<<static_cast<unsigned>(blocks), kThreads, bytes, stream>>>(args);
  const dim3 threads(32, 8);
  const auto columns = static_cast<unsigned>((args.hidden + 31) / 32);
  add_partials_kernel<<<columns, threads, 0, stream>>>(args.partial, blocks, sums, args.hidden,
                                                       args.weight_grad);
  if (kLayer)
    add_partials_kernel<<<columns, threads, 0, stream>>>(args.partial + args.hidden, blocks, sums,
                                                         args.hidden, args.bias_grad);
}

// The form of one call: element type, width of a load, kind of norm.
template <typename Element, int width, bool layer>
struct Form {
  using T = Element;
  static constexpr int kWidth = width;
  static constexpr bool kLayer = layer;
};
template <typename T, int kWidth, typename Launch>
void with_kind(bool layer, const Launch& launch) {
  if (layer) {
    launch(Form<T, kWidth, true>{});
  } else {
    launch(Form<T, kWidth, false>{});
  }
}
template <typename Packs, typename Launch>
void with_form(Element element, bool layer, const Packs& packs, const Launch& launch) {
  if (element == Element::bf16) {
    if (packs(__nv_bfloat16{})) {
      with_kind<__nv_bfloat16, 8>(layer, launch);
    } else {
      with_kind<__nv_bfloat16, 1>(layer, launch);
    }
  } else if (packs(float{})) {
    with_kind<float, 4>(layer, launch);
  } else {
    with_kind<float, 1>(layer, launch);
  }
}

}  // namespace

void norm_forward(const NormForward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto packs = [&](auto element) {
    return moves_in_packs<decltype(element)>(args.hidden, args.x, args.delta, args.weight,
                                             args.bias, args.sum, args.output);
  };
  with_form(args.element, args.mean != nullptr, packs, [&](auto form) {
    using F = decltype(form);
    forward_kernel<typename F::T, F::kWidth, F::kLayer>
        <<<static_cast<unsigned>(args.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args);
  });
}

void norm_again(const NormForward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto packs = [&](auto element) {
    return moves_in_packs<decltype(element)>(args.hidden, args.x, args.weight, args.bias,
                                             args.output);
  };
  with_form(args.element, args.mean != nullptr, packs, [&](auto form) {
    using F = decltype(form);
    again_kernel<typename F::T, F::kWidth, F::kLayer>
        <<<static_cast<unsigned>(args.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args);
  });
}

int64_t norm_backward_blocks(int64_t rows) {
  // Four waves of the largest parts' multiprocessors: enough rows in flight, few partial sums.
  return std::min<int64_t>(rows, 528);
}

void norm_backward(const NormBackward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto packs = [&](auto element) {
    return moves_in_packs<decltype(element)>(args.hidden, args.grad_output, args.grad_sum, args.x,
                                             args.weight, args.grad_x);
  };
  with_form(args.element, args.mean != nullptr, packs, [&](auto form) {
    using F = decltype(form);
    launch_backward<typename F::T, F::kWidth, F::kLayer>(args, static_cast<cudaStream_t>(stream));
  });
}

}  // namespace tptrain::kernels::cuda
