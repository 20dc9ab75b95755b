// The tiles of a weight's gradient leave with the sums of their squares: both operands lie in
// memory as [tokens][columns].
#include "kernels/cuda/hopper_product.cuh"
#include "kernels/cuda/weight_gradient.h"

namespace tptrain::kernels::cuda {

namespace {

using namespace hopper;

constexpr int kSquaresOfTile = kMultiplying * kWarpgroup / 32;  // of a block's tile: one a warp

/// Of eight sums, in fp32. What is beyond its range, as whatever is not finite, makes `plain`
/// false: squares far below what they are added to may be lost, no others.
__device__ __forceinline__ float squares_of_eight(const float (&sums)[kSums], int first,
                                                  bool& plain) {
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) squares = fmaf(sums[first + i], sums[first + i], squares);
  plain = plain & (squares >= 0x1p-100f) & (squares < INFINITY);
  return squares;
}

/// Stores a tile, 16 bytes a thread: of each pair of groups of eight columns an even lane has the
/// first group's four, an odd one the second's. The squares beside the stores, which memory takes
/// more slowly: over a warp, in a fixed order; every lane gets their sum.
__device__ __forceinline__ double store_tile(const float (&sums)[kSums], float* to, int64_t in) {
  const int lane = threadIdx.x % 32;
  const bool odd = lane % 2 == 1;
  to += lane / 4 * in + lane % 2 * 8 + lane % 4 / 2 * 4;
  double squares = 0;
  bool plain = true;
#pragma unroll
  for (int i = 0; i < kSums; i += 8) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // By name: where pointers into the sums are chosen from, ptxas runs products one by one.
      const float a0 = sums[i + 2 * half], a1 = sums[i + 2 * half + 1];
      const float b0 = sums[i + 2 * half + 4], b1 = sums[i + 2 * half + 5];
      const float x = __shfl_xor_sync(~0u, odd ? a0 : b0, 1);
      const float y = __shfl_xor_sync(~0u, odd ? a1 : b1, 1);
      *reinterpret_cast<float4*>(to + half * 8 * in + i * 2) =
          odd ? make_float4(x, y, b0, b1) : make_float4(a0, a1, x, y);
    }
    squares += squares_of_eight(sums, i, plain);
  }
  if (!plain) {  // all in fp64
    squares = 0;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const double value = sums[i];
      squares = fma(value, value, squares);
    }
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) squares += __shfl_xor_sync(~0u, squares, offset);
  return squares;
}

struct WithSquares {
  float* grad;
  double* squares;
  int64_t in;

  __device__ __forceinline__ void operator()(const float (&sums)[kSums], const Place& place,
                                             const Tiles& tiles) const {
    const double sum =
        store_tile(sums, grad + place.first_row() * in + int64_t{place.column} * kColumns, in);
    const int64_t tile = int64_t{place.row * kBlocks + place.block} * tiles.columns + place.column;
    if (threadIdx.x % 32 == 0) squares[tile * kSquaresOfTile + place.group * 4 + place.warp] = sum;
  }
};

}  // namespace

int64_t squares_of_gradient(int64_t out, int64_t in) {
  // Its code is of sm_90a, which no other card runs.
  if (out % kClusterRows != 0 || in % kColumns != 0 || capability() != 90) return 0;
  return out / kBlockRows * (in / kColumns) * kSquaresOfTile;
}

bool fills_device_with_gradient(int64_t out, int64_t in) {
  return fills_device(out / kClusterRows * (in / kColumns));
}

bool takes_weight_gradient(const WeightGradient& args) {
  constexpr int64_t kMost = int64_t{1} << 31;  // the copy engine counts in int32
  return args.tokens > 0 && args.tokens < kMost && args.out < kMost && args.in < kMost &&
         squares_of_gradient(args.out, args.in) > 0 &&
         begins_at_16_bytes(args.dy, args.dy_distance) &&
         begins_at_16_bytes(args.x, args.x_distance) && begins_at_16_bytes(args.grad, args.in);
}

void weight_gradient(const WeightGradient& args, Stream stream) {
  const ProductArgs product{.tiles = {.rows = static_cast<int>(args.out / kClusterRows),
                                      .columns = static_cast<int>(args.in / kColumns)}};
  launch_product<Along::columns, Along::columns>(
      map_along_columns(args.dy, args.tokens, args.out, args.dy_distance, kBlockRows),
      map_along_columns(args.x, args.tokens, args.in, args.x_distance, kSharedColumns), args.tokens,
      product, WithSquares{args.grad, args.squares, args.in}, stream);
}

}  // namespace tptrain::kernels::cuda
