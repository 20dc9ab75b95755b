// RMSNorm of each head of packed q and k, in place: a head lies in the registers of as many lanes
// of a warp as it has loads of 16 bytes. Backward makes the inverse root of the mean square again,
// and keeps its share of the weights' gradients in registers while the blocks walk the heads.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda {

namespace {

/// Over the kLanes lanes of a head; each of them gets it.
template <int kLanes>
__device__ float head_sum(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset >>= 1)
    value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

template <typename T, int kWidth, int kLanes>
__global__ void __launch_bounds__(kThreads) head_norm_kernel(HeadNorm args, uint32_t rows) {
  constexpr int kRows = kThreads / kLanes;  // heads of a block
  const int column = threadIdx.x % kLanes * kWidth;
  const uint32_t row = blockIdx.x * kRows + threadIdx.x / kLanes;
  const bool inside = row < rows;  // all lanes of a warp stay for the sums
  const auto heads = static_cast<uint32_t>(args.q_heads + args.k_heads);
  const uint32_t token = row / heads;
  const uint32_t head = row - token * heads;
  T* at = static_cast<T*>(args.packed) + token * args.width + head * args.head_dim + column;
  const T* weight = static_cast<const T*>(head < args.q_heads ? args.q_weight : args.k_weight);
  float x[kWidth] = {}, w[kWidth];
  if (inside) load<T, kWidth>(at, x);
  load<T, kWidth>(weight + column, w);
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) squares += x[j] * x[j];
  const float mean = head_sum<kLanes>(squares) / static_cast<float>(args.head_dim);
  const float inverse = 1.0f / sqrtf(mean + args.eps);
  if (!inside) return;
#pragma unroll
  for (int j = 0; j < kWidth; ++j) x[j] = x[j] * inverse * w[j];
  store<T, kWidth>(at, x);
}

template <typename T, int kWidth, int kLanes>
__global__ void __launch_bounds__(kThreads)
    head_norm_backward_kernel(HeadNorm args, uint32_t rows) {
  constexpr int kRows = kThreads / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int group = threadIdx.x / kLanes;
  const int column = lane * kWidth;
  const auto heads = static_cast<uint32_t>(args.q_heads + args.k_heads);
  const float count = static_cast<float>(args.head_dim);
  float q_weight[kWidth], k_weight[kWidth];
  load<T, kWidth>(static_cast<const T*>(args.q_weight) + column, q_weight);
  load<T, kWidth>(static_cast<const T*>(args.k_weight) + column, k_weight);
  float q_sums[kWidth] = {}, k_sums[kWidth] = {};
  for (uint32_t first = blockIdx.x * kRows; first < rows; first += gridDim.x * kRows) {
    const uint32_t row = first + group;
    const bool inside = row < rows;
    const uint32_t token = row / heads;
    const uint32_t head = row - token * heads;
    const bool is_q = head < args.q_heads;
    T* at = static_cast<T*>(args.packed) + token * args.width + head * args.head_dim + column;
    float x[kWidth] = {}, g[kWidth] = {};
    if (inside) {
      load<T, kWidth>(static_cast<const T*>(args.input) + int64_t{row} * args.head_dim + column, x);
      load<T, kWidth>(at, g);
    }
    float squares = 0;
    float dot = 0;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      squares += x[j] * x[j];
      dot += g[j] * x[j] * (is_q ? q_weight[j] : k_weight[j]);
    }
    const float inverse = 1.0f / sqrtf(head_sum<kLanes>(squares) / count + args.eps);
    const float mean = head_sum<kLanes>(dot) * inverse * inverse / count;
    if (!inside) continue;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float share = g[j] * x[j] * inverse;
      q_sums[j] += is_q ? share : 0.0f;
      k_sums[j] += is_q ? 0.0f : share;
      g[j] = inverse * (g[j] * (is_q ? q_weight[j] : k_weight[j]) - x[j] * mean);
    }
    store<T, kWidth>(at, g);
  }
  // The block's groups join in their order.
  constexpr int kHead = kLanes * kWidth;
  __shared__ float groups[2][kRows][kHead + 1];
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    groups[0][group][column + j] = q_sums[j];
    groups[1][group][column + j] = k_sums[j];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * kHead; i += kThreads) {
    const int part = i / kHead;
    float sum = 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) sum += groups[part][r][i - part * kHead];
    args.partial[int64_t{blockIdx.x} * 2 * kHead + i] = sum;
  }
}

/// launch(T{}, width, lanes) of a form that takes_head_norm accepts.
template <typename Launch>
void with_lanes(const HeadNorm& args, const Launch& launch) {
  const auto with_type = [&](auto type) {
    using T = decltype(type);
    constexpr int kWidth = 16 / sizeof(T);
    const std::integral_constant<int, kWidth> width;
    switch (args.head_dim / kWidth) {
      case 4:
        return launch(type, width, std::integral_constant<int, 4>{});
      case 8:
        return launch(type, width, std::integral_constant<int, 8>{});
      case 16:
        return launch(type, width, std::integral_constant<int, 16>{});
      default:
        return launch(type, width, std::integral_constant<int, 32>{});
    }
  };
  if (args.element == Element::bf16) return with_type(__nv_bfloat16{});
  with_type(float{});
}

}  // namespace

bool takes_head_norm(const HeadNorm& args) {
  const auto fits = [&](auto type) {
    using T = decltype(type);
    const int64_t lanes = args.head_dim * static_cast<int64_t>(sizeof(T)) / 16;
    return (lanes == 4 || lanes == 8 || lanes == 16 || lanes == 32) &&
           moves_in_packs<T>(args.head_dim, args.packed, args.input, args.q_weight,
                             args.k_weight) &&
           moves_in_packs<T>(args.width) &&
           args.tokens * (args.q_heads + args.k_heads) < int64_t{1} << 31;  // indices of 32 bit
  };
  return args.element == Element::bf16 ? fits(__nv_bfloat16{}) : fits(float{});
}

void head_norm(const HeadNorm& args, Stream stream) {
  const int64_t rows = args.tokens * (args.q_heads + args.k_heads);
  if (rows == 0) return;
  with_lanes(args, [&](auto type, auto width, auto lanes) {
    constexpr int kRows = kThreads / decltype(lanes)::value;
    head_norm_kernel<decltype(type), width, lanes>
        <<<static_cast<unsigned>((rows + kRows - 1) / kRows), kThreads, 0,
           static_cast<cudaStream_t>(stream)>>>(args, static_cast<uint32_t>(rows));
  });
}

int64_t head_norm_backward_blocks(int64_t tokens, int64_t heads) {
  // Four blocks on each multiprocessor; a block has 256 heads at least.
  return std::clamp<int64_t>(tokens * heads / 256, 1, int64_t{4} * multiprocessors());
}

void head_norm_backward(const HeadNorm& args, Stream stream) {
  const int64_t heads = args.q_heads + args.k_heads;
  const int64_t rows = args.tokens * heads;
  if (rows == 0) return;
  const int64_t blocks = head_norm_backward_blocks(args.tokens, heads);
  with_lanes(args, [&](auto type, auto width, auto lanes) {
    head_norm_backward_kernel<decltype(type), width, lanes>
        <<<static_cast<unsigned>(blocks), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            args, static_cast<uint32_t>(rows));
  });
  add_partials({.partial = args.partial,
                .blocks = blocks,
                .stride = 2 * args.head_dim,
                .columns = args.head_dim,
                .first = args.q_grad,
                .second = args.k_grad},
               stream);
}

}  // namespace tptrain::kernels::cuda
