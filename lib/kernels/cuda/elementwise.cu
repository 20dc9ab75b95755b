// SwiGLU, GELU and the rotary embedding: one thread an element, or eight.
#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

namespace {

template <typename T>
__device__ float sigmoid(float x) {
  return 1.0f / (1.0f + exponential<T>(-x));
}

// tanh form: u = sqrt(2/pi) (x + 0.044715 x^3), and tanh(u) = 1 - 2 / (exp(2u) + 1), which does not
// overflow at either end.
template <typename T>
__device__ float gelu_tanh_of(float x) {
  const float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
  return 1.0f - 2.0f / (exponential<T>(2.0f * u) + 1.0f);
}

template <typename T, int kWidth>
__global__ void swiglu_kernel(const T* gate_up, T* output, int64_t packs, int64_t ffn) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= packs) return;
  const int64_t element = pack * kWidth;
  const int64_t row = element / ffn;
  const int64_t column = element - row * ffn;
  const T* gate_row = gate_up + row * 2 * ffn + column;
  float gate[kWidth], up[kWidth];
  load<T, kWidth>(gate_row, gate);
  load<T, kWidth>(gate_row + ffn, up);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) gate[j] *= sigmoid<T>(gate[j]) * up[j];
  store<T, kWidth>(output + element, gate);
}

template <typename T, int kWidth>
__global__ void swiglu_backward_kernel(const T* grad_output, const T* gate_up, T* grad_gate_up,
                                       int64_t packs, int64_t ffn) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= packs) return;
  const int64_t element = pack * kWidth;
  const int64_t row = element / ffn;
  const int64_t at = row * 2 * ffn + element - row * ffn;
  float grad[kWidth], gate[kWidth], up[kWidth];
  load<T, kWidth>(grad_output + element, grad);
  load<T, kWidth>(gate_up + at, gate);
  load<T, kWidth>(gate_up + at + ffn, up);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const float s = sigmoid<T>(gate[j]);
    const float silu = gate[j] * s;
    const float grad_up = grad[j] * silu;
    gate[j] = grad[j] * up[j] * (s + silu * (1.0f - s));
    up[j] = grad_up;
  }
  store<T, kWidth>(grad_gate_up + at, gate);
  store<T, kWidth>(grad_gate_up + at + ffn, up);
}

template <typename T, int kWidth>
__global__ void gelu_kernel(const T* x, T* output, int64_t packs) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= packs) return;
  float value[kWidth];
  load<T, kWidth>(x + pack * kWidth, value);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) value[j] = 0.5f * value[j] * (1.0f + gelu_tanh_of<T>(value[j]));
  store<T, kWidth>(output + pack * kWidth, value);
}

template <typename T, int kWidth>
__global__ void gelu_backward_kernel(const T* grad_output, const T* x, T* grad_x, int64_t packs) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= packs) return;
  float value[kWidth], grad[kWidth];
  load<T, kWidth>(x + pack * kWidth, value);
  load<T, kWidth>(grad_output + pack * kWidth, grad);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const float v = value[j];
    const float t = gelu_tanh_of<T>(v);
    const float slope = 0.7978845608028654f * (1.0f + 3.0f * 0.044715f * v * v);
    grad[j] *= 0.5f * (1.0f + t) + 0.5f * v * (1.0f - t * t) * slope;
  }
  store<T, kWidth>(grad_x + pack * kWidth, grad);
}

// One thread a pair of kWidth neighbours: elements i .. and i + D/2 .. of a head.
template <typename T, int kWidth>
__global__ void rotary_kernel(Rotary args, int64_t packs) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= packs) return;
  const int64_t half = args.head_dim / 2;
  const int64_t packs_a_head = half / kWidth;
  const int64_t i = pack % packs_a_head * kWidth;
  const int64_t head = pack / packs_a_head % args.heads;
  const int64_t token = pack / (packs_a_head * args.heads);
  const int64_t position = token / args.batch;
  T* first = static_cast<T*>(args.packed) + token * args.width + head * args.head_dim + i;
  float a[kWidth], c[kWidth];
  load<T, kWidth>(first, a);
  load<T, kWidth>(first + half, c);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    const float cos = args.cos[position * half + i + j];
    const float sin = args.sign * args.sin[position * half + i + j];
    const float rotated = a[j] * cos - c[j] * sin;
    c[j] = c[j] * cos + a[j] * sin;
    a[j] = rotated;
  }
  store<T, kWidth>(first, a);
  store<T, kWidth>(first + half, c);
}

unsigned blocks_of(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

/// launch(T{}, width): the element type and elements a load, as integral constants.
template <typename Packs, typename Launch>
void with_form(Element element, const Packs& packs, const Launch& launch) {
  if (element == Element::bf16) {
    if (packs(__nv_bfloat16{})) {
      launch(__nv_bfloat16{}, std::integral_constant<int, 8>{});
    } else {
      launch(__nv_bfloat16{}, std::integral_constant<int, 1>{});
    }
  } else if (packs(float{})) {
    launch(float{}, std::integral_constant<int, 4>{});
  } else {
    launch(float{}, std::integral_constant<int, 1>{});
  }
}

}  // namespace

void swiglu(Element element, const void* gate_up, void* output, int64_t rows, int64_t ffn,
            Stream stream) {
  if (rows * ffn == 0) return;
  with_form(
      element, [&](auto type) { return moves_in_packs<decltype(type)>(ffn, gate_up, output); },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs = rows * ffn / width;
        swiglu_kernel<T, width>
            <<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
                static_cast<const T*>(gate_up), static_cast<T*>(output), packs, ffn);
      });
}

void swiglu_backward(Element element, const void* grad_output, const void* gate_up,
                     void* grad_gate_up, int64_t rows, int64_t ffn, Stream stream) {
  if (rows * ffn == 0) return;
  with_form(
      element,
      [&](auto type) {
        return moves_in_packs<decltype(type)>(ffn, grad_output, gate_up, grad_gate_up);
      },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs = rows * ffn / width;
        swiglu_backward_kernel<T, width>
            <<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
                static_cast<const T*>(grad_output), static_cast<const T*>(gate_up),
                static_cast<T*>(grad_gate_up), packs, ffn);
      });
}

void gelu_tanh(Element element, const void* x, void* output, int64_t count, Stream stream) {
  if (count == 0) return;
  with_form(
      element, [&](auto type) { return moves_in_packs<decltype(type)>(count, x, output); },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs = count / width;
        gelu_kernel<T, width><<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            static_cast<const T*>(x), static_cast<T*>(output), packs);
      });
}

void gelu_tanh_backward(Element element, const void* grad_output, const void* x, void* grad_x,
                        int64_t count, Stream stream) {
  if (count == 0) return;
  with_form(
      element,
      [&](auto type) { return moves_in_packs<decltype(type)>(count, grad_output, x, grad_x); },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs = count / width;
        gelu_backward_kernel<T, width>
            <<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
                static_cast<const T*>(grad_output), static_cast<const T*>(x),
                static_cast<T*>(grad_x), packs);
      });
}

void rotate(const Rotary& args, Stream stream) {
  const int64_t pairs = args.positions * args.batch * args.heads * args.head_dim / 2;
  if (pairs == 0) return;
  with_form(
      args.element,
      // Both halves of a head, and every head, must begin at 16 bytes.
      [&](auto type) {
        return moves_in_packs<decltype(type)>(args.head_dim / 2, args.packed) &&
               moves_in_packs<decltype(type)>(args.width, args.packed);
      },
      [&](auto type, auto width) {
        using T = decltype(type);
        const int64_t packs = pairs / width;
        rotary_kernel<T, width>
            <<<blocks_of(packs), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args, packs);
      });
}

}  // namespace tptrain::kernels::cuda
