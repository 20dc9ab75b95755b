// Loads and stores of four neighbours of a chunk (multi_tensor.h), whole or the few that are left
// at its end, aligned or not: the same elements go to the same thread either way.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/multi_tensor.h"

namespace tptrain::kernels::cuda {

/// Whether the chunk is known to hold zeros alone: it need not be read. The same for the block.
__device__ inline bool holds_zeros(const WrittenRows& rows, const Chunk& chunk) {
  if (rows.written == nullptr) return false;
  // A division of 64 bits takes several times as long, and a block waits for it with all it reads.
  const auto row_of = [&](int64_t element) -> int64_t {
    if (((element | rows.row_elements) >> 32) == 0)
      return static_cast<uint32_t>(element) / static_cast<uint32_t>(rows.row_elements);
    return element / rows.row_elements;
  };
  const int64_t last = row_of(chunk.begin + chunk.count - 1);
  for (int64_t row = row_of(chunk.begin); row <= last; ++row) {
    if (rows.written[row] != 0) return false;
  }
  return true;
}

template <typename T>
struct alignas(kPack * sizeof(T)) Four {
  T values[kPack];
};

/// A pointer out of a table, of which the compiler cannot know the address space.
template <typename T>
__device__ inline T* in_global_memory(T* pointer) {
  __builtin_assume(__isGlobal(pointer));
  return pointer;
}

template <typename T>
__device__ inline bool packs_begin_at(const T* from) {
  return reinterpret_cast<uintptr_t>(from) % sizeof(Four<T>) == 0;
}

/// to[j] = from[j], 0 from `count` on. `packs`: packs_begin_at(from).
template <typename T>
__device__ inline void load_four(const T* from, int count, bool packs, float (&to)[kPack]) {
  if (packs && count >= kPack) {
    const Four<T> four = *reinterpret_cast<const Four<T>*>(from);
#pragma unroll
    for (int j = 0; j < kPack; ++j) to[j] = wide(four.values[j]);
    return;
  }
#pragma unroll
  for (int j = 0; j < kPack; ++j) to[j] = j < count ? wide(from[j]) : 0.0f;
}

template <typename T>
__device__ inline void store_four(T* to, int count, bool packs, const Four<T>& four) {
  if (packs && count >= kPack) {
    *reinterpret_cast<Four<T>*>(to) = four;
    return;
  }
#pragma unroll
  for (int j = 0; j < kPack; ++j) {
    if (j < count) to[j] = four.values[j];
  }
}
template <typename T>
__device__ inline Four<T> narrow_four(const float (&from)[kPack]) {
  Four<T> four;
#pragma unroll
  for (int j = 0; j < kPack; ++j) four.values[j] = narrow<T>(from[j]);
  return four;
}

}  // namespace tptrain::kernels::cuda
