#include "kernels/cuda/hopper_product.cuh"
#include "kernels/cuda/swiglu.cuh"
#include "kernels/cuda/swiglu_product.h"

namespace tptrain::kernels::cuda {

namespace {

using namespace hopper;
using Bf16 = __nv_bfloat16;

constexpr int kGates = kSharedColumns;  // of a tile, and as many ups: one block sends for either
// As measured; less to add up would cover less of what is done with the sums behind it.
constexpr int64_t kFewestK = 4096;

__device__ __forceinline__ uint32_t two(float x, float y) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ float low_of(uint32_t word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_of(uint32_t word) {
  return __uint_as_float(word & 0xffff0000u);
}

/// Words of four groups of eight columns, of each those of this lane in its quad, become the whole
/// of the lane's own group: 16 bytes.
__device__ __forceinline__ uint4 gather_group(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3) {
  const bool odd = threadIdx.x % 2 == 1, high = threadIdx.x % 4 >= 2;
  const uint32_t r0 = __shfl_xor_sync(~0u, odd ? w0 : w1, 1);
  const uint32_t r1 = __shfl_xor_sync(~0u, odd ? w2 : w3, 1);
  // Of two lanes: of group 0 or 1 in a, of group 2 or 3 in b.
  const uint32_t a0 = odd ? r0 : w0, a1 = odd ? w1 : r0;
  const uint32_t b0 = odd ? r1 : w2, b1 = odd ? w3 : r1;
  const uint32_t s0 = __shfl_xor_sync(~0u, high ? a0 : b0, 2);
  const uint32_t s1 = __shfl_xor_sync(~0u, high ? a1 : b1, 2);
  return high ? make_uint4(s0, s1, b0, b1) : make_uint4(a0, a1, s0, s1);
}

/// Columns [0, kGates) of a tile are gates, the others their ups: a thread has both of an element.
struct Forward {
  Bf16* out;
  Bf16* activation;
  int64_t ffn;

  __device__ __forceinline__ void operator()(const float (&sums)[kSums], const Place& place,
                                             const Tiles&) const {
    const int lane = threadIdx.x % 32;
    const int64_t row = place.first_row() + lane / 4;
    const int64_t column = int64_t{place.column} * kGates + lane % 4 * 8;
    Bf16* product = out + row * 2 * ffn + column;
    Bf16* active = activation + row * ffn + column;
#pragma unroll
    for (int i = 0; i < kSums / 2; i += 16) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint32_t gate[4], up[4], result[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int at = i + 4 * j + 2 * half;
          gate[j] = two(sums[at], sums[at + 1]);
          up[j] = two(sums[at + kSums / 2], sums[at + kSums / 2 + 1]);
          // Of the product as it is stored.
          result[j] = two(swiglu_of<Bf16>(low_of(gate[j]), low_of(up[j])),
                          swiglu_of<Bf16>(high_of(gate[j]), high_of(up[j])));
        }
        const int64_t down = 8 * half * ffn;
        *reinterpret_cast<uint4*>(product + 2 * down + 2 * i) =
            gather_group(gate[0], gate[1], gate[2], gate[3]);
        *reinterpret_cast<uint4*>(product + 2 * down + ffn + 2 * i) =
            gather_group(up[0], up[1], up[2], up[3]);
        *reinterpret_cast<uint4*>(active + down + 2 * i) =
            gather_group(result[0], result[1], result[2], result[3]);
      }
    }
  }
};

/// Four words of eight columns: of gates and ups, which become their gradients.
__device__ __forceinline__ void backward_of(const uint4& grad, uint4& gate, uint4& up) {
  const auto of_word = [](uint32_t grad, uint32_t& gate, uint32_t& up) {
    float gates[2] = {low_of(gate), high_of(gate)}, ups[2] = {low_of(up), high_of(up)};
    swiglu_gradient<Bf16>(low_of(grad), gates[0], ups[0]);
    swiglu_gradient<Bf16>(high_of(grad), gates[1], ups[1]);
    gate = two(gates[0], gates[1]);
    up = two(ups[0], ups[1]);
  };
  of_word(grad.x, gate.x, up.x);
  of_word(grad.y, gate.y, up.y);
  of_word(grad.z, gate.z, up.z);
  of_word(grad.w, gate.w, up.w);
}

struct Backward {
  const Bf16* pre;
  Bf16* out;
  int64_t ffn;

  __device__ __forceinline__ void operator()(const float (&sums)[kSums], const Place& place,
                                             const Tiles&) const {
    const int lane = threadIdx.x % 32;
    const int64_t first =
        (place.first_row() + lane / 4) * 2 * ffn + int64_t{place.column} * kColumns + lane % 4 * 8;
    constexpr int kAtOnce = 4;  // loads on their way, of gates and of ups
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int begin = 0; begin < kSums; begin += 16 * kAtOnce) {
        const int64_t from = first + 16 * half * ffn + 2 * begin;
        uint4 gate[kAtOnce], up[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          gate[i] = *reinterpret_cast<const uint4*>(pre + from + 32 * i);
          up[i] = *reinterpret_cast<const uint4*>(pre + from + ffn + 32 * i);
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const int at = begin + 16 * i + 2 * half;
          // The gradient as it would be stored.
          const uint4 grad =
              gather_group(two(sums[at], sums[at + 1]), two(sums[at + 4], sums[at + 5]),
                           two(sums[at + 8], sums[at + 9]), two(sums[at + 12], sums[at + 13]));
          backward_of(grad, gate[i], up[i]);
          *reinterpret_cast<uint4*>(out + from + 32 * i) = gate[i];
          *reinterpret_cast<uint4*>(out + from + ffn + 32 * i) = up[i];
        }
      }
    }
  }
};

}  // namespace

bool takes_swiglu_product(const SwigluProduct& args) {
  constexpr int64_t kMost = int64_t{1} << 31;  // the copy engine counts in int32
  if (capability() != 90 || args.tokens % kClusterRows != 0 || args.ffn % kColumns != 0 ||
      args.k < kFewestK || args.k >= kMost || args.tokens >= kMost || args.ffn >= kMost)
    return false;
  return fills_device(args.tokens / kClusterRows * (args.ffn / kColumns)) &&
         begins_at_16_bytes(args.a, args.a_distance) && begins_at_16_bytes(args.weight, args.k) &&
         begins_at_16_bytes(args.out, args.ffn) && begins_at_16_bytes(args.activation, args.ffn) &&
         begins_at_16_bytes(args.pre, args.ffn);
}

void swiglu_product(const SwigluProduct& args, Stream stream) {
  ProductArgs product{.tiles = {.rows = static_cast<int>(args.tokens / kClusterRows),
                                .columns = static_cast<int>(args.ffn / kGates)}};
  product.b_distance = static_cast<int>(args.ffn);
  product.b_columns = kGates;
  launch_product<Along::rows, Along::rows>(
      map_along_rows(args.a, args.tokens, args.k, args.a_distance, kBlockRows),
      map_along_rows(args.weight, 2 * args.ffn, args.k, args.k, kGates), args.k, product,
      Forward{static_cast<Bf16*>(args.out), static_cast<Bf16*>(args.activation), args.ffn}, stream);
}

void swiglu_backward_product(const SwigluProduct& args, Stream stream) {
  const ProductArgs product{.tiles = {.rows = static_cast<int>(args.tokens / kClusterRows),
                                      .columns = static_cast<int>(args.ffn / kColumns)}};
  launch_product<Along::rows, Along::columns>(
      map_along_rows(args.a, args.tokens, args.k, args.a_distance, kBlockRows),
      map_along_columns(args.weight, args.k, args.ffn, args.ffn, kSharedColumns), args.k, product,
      Backward{static_cast<const Bf16*>(args.pre), static_cast<Bf16*>(args.out), args.ffn}, stream);
}

}  // namespace tptrain::kernels::cuda
