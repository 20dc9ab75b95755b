// RMSNorm and LayerNorm, forward: a row lies in registers, each tensor is read once and written
// once (norm_forms.cuh).
#include "kernels/cuda/norm_forms.cuh"

namespace tptrain::kernels::cuda {

namespace {

template <typename F>
__device__ void store_output(const NormForward& args, const typename F::Packs& x,
                             const typename F::Packs& weight, const typename F::Packs& bias,
                             int64_t at, int lane, float mean, float inverse) {
  using T = typename F::T;
  T* output = static_cast<T*>(args.output) + at;
#pragma unroll
  for (int p = 0; p < F::kPacks; ++p) {
    const int i = (p * F::kLanes + lane) * F::kWidth;
    if (i >= static_cast<int>(args.hidden)) break;
    float y[F::kWidth];
#pragma unroll
    for (int j = 0; j < F::kWidth; ++j)
      y[j] =
          normed_output<F::kLayer>(wide(x[p].values[j]), mean, inverse, wide(weight[p].values[j]),
                                   F::kLayer ? wide(bias[p].values[j]) : 0.0f);
    store<T, F::kWidth>(output + i, y);
  }
}

template <typename F>
__global__ void __launch_bounds__(F::kBlock) forward_kernel(NormForward args) {
  using T = typename F::T;
  const int lane = threadIdx.x % F::kLanes;
  const int hidden = static_cast<int>(args.hidden);
  const int64_t row = int64_t{blockIdx.x} * F::kRows + threadIdx.x / F::kLanes;
  if (row >= args.rows) return;  // a warp with its row: none waits for another
  const int64_t at = row * hidden;
  typename F::Packs x, weight, bias;
  load_row<F>(static_cast<const T*>(args.x) + at, lane, hidden, x);
  if (args.delta != nullptr) {
    typename F::Packs delta;
    load_row<F>(static_cast<const T*>(args.delta) + at, lane, hidden, delta);
    T* sum = static_cast<T*>(args.sum) + at;
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      const int i = (p * F::kLanes + lane) * F::kWidth;
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j)
        x[p].values[j] = narrow<T>(wide(x[p].values[j]) + wide(delta[p].values[j]));
      if (i < hidden) store_pack(sum + i, x[p]);
    }
  }
  load_row<F>(static_cast<const T*>(args.weight), lane, hidden, weight);
  if (F::kLayer) load_row<F>(static_cast<const T*>(args.bias), lane, hidden, bias);
  float total = 0;
  float squares = 0;
#pragma unroll
  for (int p = 0; p < F::kPacks; ++p) {
#pragma unroll
    for (int j = 0; j < F::kWidth; ++j) {
      const float value = wide(x[p].values[j]);
      total += value;
      squares += value * value;
    }
  }
  const float count = static_cast<float>(hidden);
  float mean = 0;
  if (F::kLayer) {
    mean = row_sums<F>(total, 0.0f, 0).x / count;
    squares = 0;  // about the mean: a difference of large squares would lose the variance
#pragma unroll
    for (int p = 0; p < F::kPacks; ++p) {
      if ((p * F::kLanes + lane) * F::kWidth >= hidden) break;
#pragma unroll
      for (int j = 0; j < F::kWidth; ++j) {
        const float difference = wide(x[p].values[j]) - mean;
        squares += difference * difference;
      }
    }
  }
  const float inverse = 1.0f / sqrtf(row_sums<F>(squares, 0.0f, 1).x / count + args.eps);
  if (lane == 0) {
    args.inverse[row] = inverse;
    if (F::kLayer) args.mean[row] = mean;
  }
  store_output<F>(args, x, weight, bias, at, lane, mean, inverse);
}

template <typename F>
__global__ void __launch_bounds__(F::kBlock) again_kernel(NormForward args) {
  using T = typename F::T;
  const int lane = threadIdx.x % F::kLanes;
  const int hidden = static_cast<int>(args.hidden);
  const int64_t row = int64_t{blockIdx.x} * F::kRows + threadIdx.x / F::kLanes;
  if (row >= args.rows) return;
  const int64_t at = row * hidden;
  typename F::Packs x, weight, bias;
  load_row<F>(static_cast<const T*>(args.x) + at, lane, hidden, x);
  load_row<F>(static_cast<const T*>(args.weight), lane, hidden, weight);
  if (F::kLayer) load_row<F>(static_cast<const T*>(args.bias), lane, hidden, bias);
  store_output<F>(args, x, weight, bias, at, lane, F::kLayer ? args.mean[row] : 0.0f,
                  args.inverse[row]);
}

template <typename F>
unsigned blocks_of(int64_t rows) {
  return static_cast<unsigned>((rows + F::kRows - 1) / F::kRows);
}

}  // namespace

void norm_forward(const NormForward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  with_form<ForwardForms>(
      args.element, args.mean != nullptr, args.hidden,
      [&](auto element) {
        return moves_in_packs<decltype(element)>(args.hidden, args.x, args.delta, args.weight,
                                                 args.bias, args.sum, args.output);
      },
      [&](auto form) {
        using F = decltype(form);
        forward_kernel<F><<<blocks_of<F>(args.rows), F::kBlock, 0, on>>>(args);
      },
      [&](Loads loads) { long_norm_forward(args, loads, stream); });
}

void norm_again(const NormForward& args, Stream stream) {
  if (args.rows == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  with_form<ForwardForms>(
      args.element, args.mean != nullptr, args.hidden,
      [&](auto element) {
        return moves_in_packs<decltype(element)>(args.hidden, args.x, args.weight, args.bias,
                                                 args.output);
      },
      [&](auto form) {
        using F = decltype(form);
        again_kernel<F><<<blocks_of<F>(args.rows), F::kBlock, 0, on>>>(args);
      },
      [&](Loads loads) { long_norm_again(args, loads, stream); });
}

}  // namespace tptrain::kernels::cuda
