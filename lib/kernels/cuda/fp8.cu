// Casts of bf16 matrices to FP8: the largest magnitude in one pass, then rows and columns (the
// transpose) in one more, by tiles of 128 x 128 through shared memory. Bits are those of the CPU's
// loops: conversions round to nearest even, and nothing saturates, since the scale makes room for
// the largest magnitude.
#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/properties.h"
#include "kernels/fp8_scale.h"

namespace tptrain::kernels::cuda {

namespace {

constexpr int kTile = 128;         // rows and columns of a tile
constexpr int kColumnsEach = 8;    // of a thread: 16 bytes of bf16
constexpr int kRowsEach = 4;       // of a thread: a word of a column
constexpr int kWords = kTile / 4;  // of a column in shared memory
constexpr int kAcross = kTile / kColumnsEach;
constexpr int kDown = kThreads / kAcross * kRowsEach;  // rows that the block has at once
constexpr int kPasses = kTile / kDown;
constexpr int kUnroll = 4;

/// Of two bf16 in a word, none negative: their order is that of their bits, NaN above infinity.
__device__ inline uint32_t larger(uint32_t a, uint32_t b) { return __vmaxs2(a, b); }
__device__ inline uint32_t magnitudes(uint32_t two) { return two & 0x7fff7fffu; }

__global__ void __launch_bounds__(kThreads)
    amax_kernel(const uint4* x, int64_t packs, uint32_t* amax_bits) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  uint32_t most = 0;
  const auto take = [&](const uint4& pack) {
    most = larger(most, larger(larger(magnitudes(pack.x), magnitudes(pack.y)),
                               larger(magnitudes(pack.z), magnitudes(pack.w))));
  };
  for (; i + (kUnroll - 1) * stride < packs; i += kUnroll * stride) {
    uint4 ahead[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) ahead[k] = x[i + k * stride];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) take(ahead[k]);
  }
  for (; i < packs; i += stride) take(x[i]);
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1)
    most = larger(most, __shfl_xor_sync(~0u, most, offset));
  __shared__ uint32_t of_warps[kThreads / 32];
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kThreads / 32; ++warp) most = larger(most, of_warps[warp]);
  const uint32_t one = (most >> 16) > (most & 0xffffu) ? most >> 16 : most & 0xffffu;
  // The same whatever the order.
  atomicMax(amax_bits, one << 16);
}

/// Eight bf16 times a power of two, as FP8.
template <__nv_fp8_interpretation_t kType>
__device__ inline uint2 cast_pack(const uint4& pack, float factor) {
  const auto two = [&](uint32_t bits) -> uint32_t {
    const float2 values = make_float2(__uint_as_float(bits << 16) * factor,
                                      __uint_as_float(bits & 0xffff0000u) * factor);
    return __nv_cvt_float2_to_fp8x2(values, __NV_SATFINITE, kType);
  };
  return make_uint2(two(pack.x) | two(pack.y) << 16, two(pack.z) | two(pack.w) << 16);
}

/// A column's words lie at (word ^ swizzle): a warp's writes, and its reads of four neighbours,
/// then meet every bank once.
__device__ inline int swizzle(int column) { return column / kColumnsEach * 2; }

/// Four rows of eight bytes become eight columns of four, in the tile.
__device__ inline void put_columns(uint32_t* tile, const uint2 (&rows)[kRowsEach], int word,
                                   int across) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const auto of = [&](int i) { return half == 0 ? rows[i].x : rows[i].y; };
    const uint32_t low01 = __byte_perm(of(0), of(1), 0x5140);   // r0c0 r1c0 r0c1 r1c1
    const uint32_t high01 = __byte_perm(of(0), of(1), 0x7362);  // of columns 2 and 3
    const uint32_t low23 = __byte_perm(of(2), of(3), 0x5140);
    const uint32_t high23 = __byte_perm(of(2), of(3), 0x7362);
    const uint32_t columns[4] = {
        __byte_perm(low01, low23, 0x5410), __byte_perm(low01, low23, 0x7632),
        __byte_perm(high01, high23, 0x5410), __byte_perm(high01, high23, 0x7632)};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int local = across * kColumnsEach + half * 4 + j;
      tile[local * kWords + (word ^ swizzle(local))] = columns[j];
    }
  }
}

/// The tile's columns to memory, when the whole block has put its own.
__device__ inline void store_columns(const uint32_t* tile, void* as_columns, int64_t width,
                                     int64_t column_length, int64_t first_row,
                                     int64_t first_column) {
  constexpr int kQuads = kWords / 4;  // 16 bytes each
  const int quad = static_cast<int>(threadIdx.x) % kQuads;
#pragma unroll
  for (int local = static_cast<int>(threadIdx.x) / kQuads; local < kTile;
       local += kThreads / kQuads) {
    const int turned = swizzle(local);
    uint4 words =
        *reinterpret_cast<const uint4*>(tile + local * kWords + (quad ^ (turned >> 2)) * 4);
    if (turned & 2) words = make_uint4(words.z, words.w, words.x, words.y);
    const int64_t row = first_row + quad * 16;
    if (first_column + local < width && row < column_length)
      store_word(static_cast<uint8_t*>(as_columns) + (first_column + local) * column_length + row,
                 words);
  }
}

// Long: one pass over a tile; what it holds in registers and shared memory, every part of it uses.
template <__nv_fp8_interpretation_t kType, bool kRows, bool kColumns>
__global__ void __launch_bounds__(kThreads) cast_kernel(Fp8Cast args) {
  __shared__ __align__(16) uint32_t tile[kColumns ? kTile * kWords : 4];
  const int across = static_cast<int>(threadIdx.x) % kAcross;
  const int down = static_cast<int>(threadIdx.x) / kAcross;
  const int64_t first_row = int64_t{blockIdx.y} * kTile;
  const int64_t first_column = int64_t{blockIdx.x} * kTile;
  const int64_t column = first_column + across * kColumnsEach;

  float factor;
  if (args.amax_bits != nullptr) {
    const uint32_t bits = *args.amax_bits;
    const int exponent =
        fp8_exponent(bits, kType == __NV_E4M3 ? kTopExponentE4m3 : kTopExponentE5m2);
    const bool finite = fp8_is_finite(bits);
    factor = __uint_as_float(finite ? power_of_two_bits(exponent) : kNanBits);
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0)
      *args.scale = __uint_as_float(finite ? power_of_two_bits(-exponent) : kNanBits);
  } else {
    factor = 1.0f / *args.scale;  // of a power of two: exact
  }

  uint4 packs[kPasses][kRowsEach];
  const auto* x = static_cast<const __nv_bfloat16*>(args.x);
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
      const int64_t row = first_row + pass * kDown + down * kRowsEach + i;
      const bool inside = row < args.rows && column < args.columns;
      packs[pass][i] = inside ? *reinterpret_cast<const uint4*>(x + row * args.columns + column)
                              : make_uint4(0, 0, 0, 0);
    }
  }
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
    uint2 cast[kRowsEach];
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
      cast[i] = cast_pack<kType>(packs[pass][i], factor);
      if constexpr (kRows) {
        const int64_t row = first_row + pass * kDown + down * kRowsEach + i;
        if (row < args.rows && column < args.columns)
          *reinterpret_cast<uint2*>(static_cast<uint8_t*>(args.as_rows) + row * args.columns +
                                    column) = cast[i];
      }
    }
    if constexpr (kColumns) {
      put_columns(tile, cast, pass * (kDown / 4) + down, across);
    }
  }
  if constexpr (kColumns) {
    __syncthreads();
    store_columns(tile, args.as_columns, args.columns, args.column_length, first_row, first_column);
  }
}

/// The columns of rows that are bytes already.
__global__ void __launch_bounds__(kThreads) turn_kernel(Fp8Turn args) {
  __shared__ __align__(16) uint32_t tile[kTile * kWords];
  const int across = static_cast<int>(threadIdx.x) % kAcross;
  const int down = static_cast<int>(threadIdx.x) / kAcross;
  const int64_t first_row = int64_t{blockIdx.y} * kTile;
  const int64_t first_column = int64_t{blockIdx.x} * kTile;
  const int64_t column = first_column + across * kColumnsEach;
  uint2 packs[kPasses][kRowsEach];
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) {
#pragma unroll
    for (int i = 0; i < kRowsEach; ++i) {
      const int64_t row = first_row + pass * kDown + down * kRowsEach + i;
      const bool inside = row < args.rows && column < args.columns;
      packs[pass][i] =
          inside ? *reinterpret_cast<const uint2*>(static_cast<const uint8_t*>(args.as_rows) +
                                                   row * args.columns + column)
                 : make_uint2(0, 0);
    }
  }
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass)
    put_columns(tile, packs[pass], pass * (kDown / 4) + down, across);
  __syncthreads();
  store_columns(tile, args.as_columns, args.columns, args.column_length, first_row, first_column);
}

template <__nv_fp8_interpretation_t kType>
void launch(const Fp8Cast& args, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.columns + kTile - 1) / kTile),
                  static_cast<unsigned>((args.rows + kTile - 1) / kTile));
  if (args.as_columns == nullptr) {
    cast_kernel<kType, true, false><<<grid, kThreads, 0, stream>>>(args);
  } else if (args.as_rows == nullptr) {
    cast_kernel<kType, false, true><<<grid, kThreads, 0, stream>>>(args);
  } else {
    cast_kernel<kType, true, true><<<grid, kThreads, 0, stream>>>(args);
  }
}

}  // namespace

void amax_of(const void* x, int64_t count, uint32_t* amax_bits, Stream stream) {
  const int64_t packs = count / 8;
  const int64_t blocks =
      std::min<int64_t>((packs + kThreads - 1) / kThreads, int64_t{8} * multiprocessors());
  amax_kernel<<<static_cast<unsigned>(std::max<int64_t>(1, blocks)), kThreads, 0,
                static_cast<cudaStream_t>(stream)>>>(static_cast<const uint4*>(x), packs,
                                                     amax_bits);
}

void fp8_turn(const Fp8Turn& args, Stream stream) {
  const dim3 grid(static_cast<unsigned>((args.columns + kTile - 1) / kTile),
                  static_cast<unsigned>((args.column_length + kTile - 1) / kTile));
  turn_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(args);
}

void fp8_cast(const Fp8Cast& args, Stream stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  args.e5m2 ? launch<__NV_E5M2>(args, on) : launch<__NV_E4M3>(args, on);
}

}  // namespace tptrain::kernels::cuda
