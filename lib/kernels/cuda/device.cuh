// What the kernels of this folder share: loads and stores of eight elements at a time, and sums
// over a block in a fixed order.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace tptrain::kernels::cuda {

inline constexpr int kThreads = 256;

__device__ inline float wide(float value) { return value; }
__device__ inline float wide(__nv_bfloat16 value) { return __bfloat162float(value); }
template <typename T>
__device__ inline T narrow(float value);
template <>
__device__ inline float narrow<float>(float value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

/// e^x to two ulp where elements are fp32; where they are bf16, to what is far below their own
/// rounding.
template <typename T>
__device__ inline float exponential(float x) {
  return sizeof(T) == sizeof(float) ? expf(x) : __expf(x);
}

/// kWidth neighbours that move in loads of 16 bytes; kWidth 1 takes any alignment.
template <typename T, int kWidth>
struct alignas(kWidth == 1 ? alignof(T) : 16) Pack {
  T values[kWidth];
};

template <typename T, int kWidth>
__device__ inline void load(const T* from, float (&to)[kWidth]) {
  const Pack<T, kWidth> pack = *reinterpret_cast<const Pack<T, kWidth>*>(from);
#pragma unroll
  for (int i = 0; i < kWidth; ++i) to[i] = wide(pack.values[i]);
}
template <typename T, int kWidth>
__device__ inline void store(T* to, const float (&from)[kWidth]) {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack.values[i] = narrow<T>(from[i]);
  *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}
__device__ inline float warp_max(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1)
    value = fmaxf(value, __shfl_xor_sync(~0u, value, offset));
  return value;
}

/// Over kThreads threads; every thread gets it. Synchronises the block twice.
__device__ inline float block_sum(float value) {
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
__device__ inline float block_max(float value) {
  __shared__ float warps[kThreads / 32];
  value = warp_max(value);
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  float total = warps[0];
#pragma unroll
  for (int i = 1; i < kThreads / 32; ++i) total = fmaxf(total, warps[i]);
  return total;
}

/// Elements of 16 bytes, where rows of `size` elements from these addresses allow it; else 1.
template <typename T, typename... Pointers>
bool moves_in_packs(int64_t size, Pointers... pointers) {
  const bool aligned = ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
  return aligned && size % static_cast<int64_t>(16 / sizeof(T)) == 0;
}

}  // namespace tptrain::kernels::cuda
