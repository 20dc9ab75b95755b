// What the kernels of this folder share: loads and stores of 16 bytes at a time, sums over a warp
// in a fixed order, and the join of sums that blocks made for themselves.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernels/cuda/kernels.h"

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

/// a / b, likewise: a division to the last bit is a third of what such a kernel computes.
template <typename T>
__device__ inline float quotient(float a, float b) {
  return sizeof(T) == sizeof(float) ? a / b : __fdividef(a, b);
}

/// kWidth neighbours that move in loads of 16 bytes; kWidth 1 takes any alignment.
template <typename T, int kWidth>
struct alignas(kWidth == 1 ? alignof(T) : 16) Pack {
  T values[kWidth];
};

/// 16 bytes at once. By name: nvcc 13.0 takes the copy of a struct apart and does not always put it
/// together again, which `cuobjdump -sass` shows as STG.E in place of STG.E.128.
__device__ inline void store_word(void* to, uint4 word) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
               "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w)
               : "memory");
}

/// As they lie in memory: half the registers of fp32 where they are bf16.
template <typename T, int kWidth>
__device__ inline Pack<T, kWidth> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from);
}
template <typename T, int kWidth>
__device__ inline Pack<T, kWidth> zero_pack() {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack.values[i] = narrow<T>(0.0f);
  return pack;
}
template <typename T, int kWidth>
__device__ inline void store_pack(T* to, const Pack<T, kWidth>& pack) {
  if constexpr (kWidth == 1) {
    *to = pack.values[0];
  } else {
    uint4 word;
    static_assert(sizeof(word) == sizeof(pack), "a pack has 16 bytes");
    memcpy(&word, &pack, sizeof(word));
    store_word(to, word);
  }
}
/// All of a pack at once: one instruction an element of bf16, where taking a word's upper half for
/// itself costs two.
template <typename T, int kWidth>
__device__ inline void widen(const Pack<T, kWidth>& pack, float (&to)[kWidth]) {
  if constexpr (std::is_same_v<T, __nv_bfloat16> && kWidth % 2 == 0) {
    uint32_t words[kWidth / 2];
    static_assert(sizeof(words) == sizeof(pack), "two of bf16 a word");
    memcpy(words, &pack, sizeof(words));
#pragma unroll
    for (int i = 0; i < kWidth; i += 2) {
      to[i] = __uint_as_float(words[i / 2] << 16);
      to[i + 1] = __uint_as_float(words[i / 2] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = wide(pack.values[i]);
  }
}
template <typename T, int kWidth>
__device__ inline void load(const T* from, float (&to)[kWidth]) {
  widen(load_pack<T, kWidth>(from), to);
}
template <typename T, int kWidth>
__device__ inline void store(T* to, const float (&from)[kWidth]) {
  Pack<T, kWidth> pack;
  if constexpr (std::is_same_v<T, __nv_bfloat16> && kWidth % 2 == 0) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 2) {
      const __nv_bfloat162 two = __floats2bfloat162_rn(from[i], from[i + 1]);  // one instruction
      pack.values[i] = two.x;
      pack.values[i + 1] = two.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) pack.values[i] = narrow<T>(from[i]);
  }
  store_pack(to, pack);
}
/// fp32 of a table, as many as a pack of elements has.
template <int kWidth>
__device__ inline void load_floats(const float* from, float (&to)[kWidth]) {
  if constexpr (kWidth % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      to[i] = four.x;
      to[i + 1] = four.y;
      to[i + 2] = four.z;
      to[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = from[i];
  }
}
template <int kWidth>
__device__ inline void store_floats(float* to, const float (&from)[kWidth]) {
  if constexpr (kWidth % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 4)
      store_word(to + i, make_uint4(__float_as_uint(from[i]), __float_as_uint(from[i + 1]),
                                    __float_as_uint(from[i + 2]), __float_as_uint(from[i + 3])));
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = from[i];
  }
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

/// Elements of 16 bytes, where rows of `size` elements from these addresses allow it; else 1.
template <typename T, typename... Pointers>
bool moves_in_packs(int64_t size, Pointers... pointers) {
  const bool aligned = ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
  return aligned && size % static_cast<int64_t>(16 / sizeof(T)) == 0;
}

/// launch(T{}, width): the element type, and as an integral constant how many of them a load has.
/// packs(T{}) says whether loads of 16 bytes do.
template <typename Packs, typename Launch>
void with_packs(Element element, const Packs& packs, const Launch& launch) {
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

/// Sums of blocks: column i of the first `columns` joins first[i], the next `columns` of a row join
/// second (where it is not null), and those behind become third (likewise).
struct Partials {
  const float* partial = nullptr;  // [blocks, stride]
  int64_t blocks = 0;
  int64_t stride = 0;
  int64_t columns = 0;
  float* first = nullptr;
  float* second = nullptr;  // or null
  float* third = nullptr;   // or null; written, not added to
};
/// In the order of the blocks' numbers, whatever the device. Defined in sums.cu.
void add_partials(const Partials& args, Stream stream);

}  // namespace tptrain::kernels::cuda
