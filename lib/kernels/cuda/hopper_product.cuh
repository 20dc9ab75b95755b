// A product of bf16 matrices on Hopper, to which a kernel gives what becomes of its tiles while
// they are in registers: cuBLASLt has no such outputs. The bits of a tile are cuBLAS': sums in
// fp32, in the order of K.
//
// One block a multiprocessor, which stays: a warpgroup sends for operands, two multiply them, 64
// rows of 256 columns each. Two blocks are a cluster that shares its columns of b: each sends for
// half of them, to both.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "base/text.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/hopper_maps.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda::hopper {

constexpr int kWarpgroup = 128;
constexpr int kMultiplying = 2;  // warpgroups
constexpr int kProductThreads = (1 + kMultiplying) * kWarpgroup;
constexpr int kRows = 64;  // of a warpgroup's tile
constexpr int kColumns = 256;
constexpr int kSums = kRows * kColumns / kWarpgroup;  // of a thread
constexpr int kBlockRows = kMultiplying * kRows;
constexpr int kBlocks = 2;  // of a cluster
constexpr int kClusterRows = kBlocks * kBlockRows;
constexpr int kSharedColumns = kColumns / kBlocks;  // that one block sends for
constexpr int kDepth = 64;                          // of K, that one stage holds: 128 bytes
constexpr int kStep = 16;                           // of K, in one instruction
constexpr int kStages = 4;
constexpr uint32_t kBoxBytes = 64 * kDepth * 2;  // 64 rows or columns
constexpr uint32_t kABytes = kBlockRows / 64 * kBoxBytes;
constexpr uint32_t kBBytes = kColumns / 64 * kBoxBytes;
constexpr uint32_t kStageBytes = kABytes + kBBytes;
constexpr uint32_t kSwizzleBytes = 1024;  // what stages begin at
constexpr size_t kProductBytes = kStages * kStageBytes + kSwizzleBytes + kStages * 2 * 8;

/// How an operand lies in memory: K along its rows, [M or N][K], or down its columns, [K][M or N].
enum class Along { rows, columns };

struct Tiles {
  int rows = 0;     // of clusters' tiles
  int columns = 0;  // likewise
  /// What is at work at a time shall read few rows and few columns: bands of rows, in each along
  /// the columns. (Bands of columns are 2 % slower where a has few rows.)
  static constexpr int kBand = 8;

  __host__ __device__ int count() const { return rows * columns; }
  __device__ void find(int tile, int& row, int& column) const {
    const int of_band = columns * kBand;
    const int band = tile / of_band;
    const int height = min(kBand, rows - band * kBand);
    const int place = tile - band * of_band;
    column = place / height;
    row = band * kBand + place - column * height;
  }
};

struct ProductArgs {
  Tiles tiles;
  int stages = 0;  // of a tile: kDepth of K each, of the last what is there and zeros
  int b_distance = kSharedColumns;  // from the columns that one block sends for to the other's
  int b_columns = kColumns;         // from one tile's columns to the next's
};

/// Where a warp's 16 rows of a tile are.
struct Place {
  int row = 0;     // of clusters' tiles
  int column = 0;  // likewise
  int block = 0;   // of the cluster
  int group = 0;   // of the block's warpgroups
  int warp = 0;    // of the warpgroup
  __device__ int64_t first_row() const {
    return int64_t{row} * kClusterRows + block * kBlockRows + group * kRows + warp * (kRows / 4);
  }
};

#if __CUDA_ARCH_FEAT_SM90_ALL
/// The places of a block's operands, in turn: filled by copies, emptied by both blocks' products.
class Ring {
 public:
  __device__ explicit Ring(uint32_t memory) : memory_(memory) {}
  __device__ void init() const {
    for (int s = 0; s < kStages; ++s) {
      filled(s).init(1);
      emptied(s).init(kBlocks * kMultiplying);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __device__ uint32_t a() const { return memory_ + stage_ * kStageBytes; }
  __device__ uint32_t b() const { return a() + kABytes; }
  __device__ Barrier filled() const { return filled(stage_); }
  __device__ void wait_filled() const { filled(stage_).wait(round_); }
  /// In the first round all are.
  __device__ void wait_emptied() const { emptied(stage_).wait(round_ ^ 1); }
  /// By one thread a block of the cluster.
  __device__ void empty(int stage, uint32_t block) const { emptied(stage).arrive_at(block); }
  __device__ int stage() const { return stage_; }
  __device__ void advance() {
    if (++stage_ < kStages) return;
    stage_ = 0;
    round_ ^= 1;
  }

 private:
  __device__ Barrier filled(int stage) const {
    return {memory_ + kStages * kStageBytes + 16 * stage};
  }
  __device__ Barrier emptied(int stage) const { return {filled(stage).at + 8}; }
  uint32_t memory_;
  int stage_ = 0;
  uint32_t round_ = 0;
};

template <Along kA, Along kB>
__device__ void send_for_operands(const CUtensorMap& a, const CUtensorMap& b,
                                  const ProductArgs& args, Ring ring) {
  const auto rank = static_cast<int>(rank_in_cluster());
  for (int tile = blockIdx.x / kBlocks; tile < args.tiles.count(); tile += gridDim.x / kBlocks) {
    int row, column;
    args.tiles.find(tile, row, column);
    const int a_first = row * kClusterRows + rank * kBlockRows;
    const int b_first = column * args.b_columns + rank * args.b_distance;
    for (int stage = 0; stage < args.stages; ++stage) {
      const int k = stage * kDepth;
      ring.wait_emptied();
      ring.filled().expect(kStageBytes);
      const uint32_t half = ring.b() + rank * (kBBytes / kBlocks);
      constexpr uint16_t kAll = (1 << kBlocks) - 1;
      if constexpr (kA == Along::columns)
        copy_box(ring.a(), a, ring.filled(), 0, k, a_first / 64);
      else
        copy_box(ring.a(), a, ring.filled(), k, a_first, 0);
      if constexpr (kB == Along::columns)
        copy_box_to(kAll, half, b, ring.filled(), 0, k, b_first / 64);
      else
        copy_box_to(kAll, half, b, ring.filled(), k, b_first, 0);
      ring.advance();
    }
  }
}

template <Along kOperand>
__device__ inline uint64_t operand_at(uint32_t address, int step) {
  if constexpr (kOperand == Along::columns)
    return operand_along_columns(address + step * kStep * 128, kBoxBytes);
  else
    return operand_along_rows(address + step * kStep * 2);
}

/// The tile of a warpgroup, [kRows, kColumns]. A place is emptied when the products behind it are
/// on their way.
template <Along kA, Along kB>
__device__ void multiply_tile(float (&sums)[kSums], Ring& ring, int stages, int group) {
  const auto empty = [&](int stage) {
    const uint32_t thread = threadIdx.x % kWarpgroup;
    if (thread < kBlocks) ring.empty(stage, thread);
  };
  int before = -1;
  for (int k = 0; k < stages; ++k) {
    ring.wait_filled();
    begin_products();
#pragma unroll
    for (int step = 0; step < kDepth / kStep; ++step) {
      multiply<kA == Along::columns, kB == Along::columns>(
          sums, operand_at<kA>(ring.a() + group * kBoxBytes, step), operand_at<kB>(ring.b(), step),
          k > 0 || step > 0);
    }
    commit_products();
    products_done<1>();
    if (before >= 0) empty(before);
    before = ring.stage();
    ring.advance();
  }
  products_done<0>();
  // Nothing that reads the sums may be moved before this.
#pragma unroll
  for (float& sum : sums) asm volatile("" : "+f"(sum)::"memory");
  empty(before);
}
#endif

/// output(sums, place): of each tile, by each thread of its two warpgroups; sums as multiply()
/// says.
template <Along kA, Along kB, typename Output>
__global__ void __cluster_dims__(kBlocks, 1, 1) __launch_bounds__(kProductThreads, 1)
    product_kernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                   const ProductArgs args, const Output output) {
#if __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t memory[];
  Ring ring((shared_address(memory) + kSwizzleBytes - 1) / kSwizzleBytes * kSwizzleBytes);
  if (threadIdx.x == 0) ring.init();
  cluster_barrier();
  if (threadIdx.x < kWarpgroup) {
    leave_registers<40>();
    if (threadIdx.x == 0) send_for_operands<kA, kB>(a, b, args, ring);
  } else {
    take_registers<232>();
    const auto thread = static_cast<int>(threadIdx.x);
    Place place{.block = static_cast<int>(rank_in_cluster()),
                .group = thread / kWarpgroup - 1,
                .warp = thread / 32 % 4};
    for (int tile = blockIdx.x / kBlocks; tile < args.tiles.count(); tile += gridDim.x / kBlocks) {
      args.tiles.find(tile, place.row, place.column);
      float sums[kSums];
      multiply_tile<kA, kB>(sums, ring, args.stages, place.group);
      output(sums, place, args.tiles);
    }
  }
  cluster_barrier();  // the other block writes into this one's memory, and its barriers
#endif
}

inline int clusters_of_device() { return multiprocessors() / kBlocks; }
/// Whether nearly all of the current device has a tile to the end: at least 90 % of it.
inline bool fills_device(int64_t tiles) {
  const int64_t clusters = clusters_of_device();
  const int64_t rounds = (tiles + clusters - 1) / clusters;
  return tiles > 0 && 10 * tiles >= 9 * rounds * clusters;
}

template <Along kA, Along kB, typename Output>
void launch_product(const CUtensorMap& a, const CUtensorMap& b, int64_t k, ProductArgs args,
                    const Output& output, Stream stream) {
  const auto kernel = product_kernel<kA, kB, Output>;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kProductBytes);
  if (status != cudaSuccess)
    throw InternalError(
        problem(cat("kernels: a product for Hopper: ", cudaGetErrorString(status))));
  args.stages = static_cast<int>((k + kDepth - 1) / kDepth);
  const int clusters = std::min(clusters_of_device(), args.tiles.count());
  kernel<<<static_cast<unsigned>(kBlocks * clusters), kProductThreads, kProductBytes,
           static_cast<cudaStream_t>(stream)>>>(a, b, args, output);
}

}  // namespace tptrain::kernels::cuda::hopper
