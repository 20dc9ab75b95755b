// Sums over rows in two launches: blocks add up their rows, and add_partials adds up the blocks in
// order. The gradient of a bias is one. The sums of the loss over tokens, likewise.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/properties.h"

namespace tptrain::kernels::cuda {

namespace {

// A warp reads 32 neighbouring columns of a row; 32 warps read every 32nd row.
__global__ void __launch_bounds__(1024) add_partials_kernel(Partials args) {
  __shared__ float warps[32][33];
  const int64_t column = int64_t{blockIdx.x} * 32 + threadIdx.x;
  const float* partial = args.partial + blockIdx.y * args.columns;
  float sum = 0;
  if (column < args.columns) {
#pragma unroll 16
    for (int64_t block = threadIdx.y; block < args.blocks; block += 32)
      sum += partial[block * args.stride + column];
  }
  warps[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  // Transposed: warp y has column y.
  sum = warp_sum(warps[threadIdx.x][threadIdx.y]);
  const int64_t own = int64_t{blockIdx.x} * 32 + threadIdx.y;
  if (threadIdx.x == 0 && own < args.columns) {
    if (blockIdx.y == 2) {
      args.third[own] = sum;
      return;
    }
    float* total = blockIdx.y == 0 ? args.first : args.second;
    total[own] += sum;
  }
}

constexpr int kRowLanes = 8;
constexpr int kRowsAtOnce = 4;  // loads in flight of a thread
constexpr int kResident = 5;    // blocks of 256 threads and some 48 registers on a multiprocessor

template <typename T, int kWidth, bool kCopies>
__global__ void __launch_bounds__(256, kResident)
    column_sums_kernel(ColumnSums args, int64_t rows_a_block) {
  __shared__ float lanes[kRowLanes][32 * kWidth + 1];
  const int64_t column = (int64_t{blockIdx.x} * 32 + threadIdx.x) * kWidth;
  const bool inside = column < args.columns;
  const int64_t begin = blockIdx.y * rows_a_block;
  const int64_t end = begin + rows_a_block < args.rows ? begin + rows_a_block : args.rows;
  const T* x = static_cast<const T*>(args.x) + column;
  T* copy = static_cast<T*>(args.copy) + column;
  float sums[kWidth] = {};
  if (inside) {
    for (int64_t row = begin + threadIdx.y; row < end; row += kRowLanes * kRowsAtOnce) {
      Pack<T, kWidth> packs[kRowsAtOnce];
#pragma unroll
      for (int r = 0; r < kRowsAtOnce; ++r) {
        const int64_t at = row + r * kRowLanes;
        packs[r] = at < end ? load_pack<T, kWidth>(x + at * args.columns) : zero_pack<T, kWidth>();
      }
#pragma unroll
      for (int r = 0; r < kRowsAtOnce; ++r) {
        const int64_t at = row + r * kRowLanes;
        if (kCopies && at < end) store_pack(copy + at * args.copy_stride, packs[r]);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) sums[j] += wide(packs[r].values[j]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kWidth; ++j) lanes[threadIdx.y][threadIdx.x * kWidth + j] = sums[j];
  __syncthreads();
  for (int i = threadIdx.y * 32 + threadIdx.x; i < 32 * kWidth; i += 256) {
    const int64_t own = int64_t{blockIdx.x} * 32 * kWidth + i;
    if (own >= args.columns) break;
    float sum = 0;
#pragma unroll
    for (int lane = 0; lane < kRowLanes; ++lane) sum += lanes[lane][i];
    args.partial[blockIdx.y * args.columns + own] = sum;
  }
}

// --- The sums of the loss.

constexpr int64_t kIgnored = -100;
constexpr int kSumThreads = 512;
constexpr int64_t kTokensABlock = 4096;

/// Over kSumThreads threads, in a fixed order; thread 0 gets it.
__device__ double block_sum(double value) {
  __shared__ double warps[kSumThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_down_sync(~0u, value, offset);
  __syncthreads();  // the last use of `warps` is over
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kSumThreads / 32; ++i) total += warps[i];
  }
  return total;
}

__global__ void __launch_bounds__(kSumThreads) cross_entropy_kernel(CrossEntropySums args) {
  const int64_t begin = blockIdx.x * kTokensABlock;
  const int64_t end = begin + kTokensABlock < args.tokens ? begin + kTokensABlock : args.tokens;
  double loss = 0;
  double squares = 0;
  for (int64_t t = begin + threadIdx.x; t < end; t += kSumThreads) {
    if (args.targets[t] == kIgnored) continue;
    const auto log_sum = static_cast<double>(logf(args.sums[t]));
    const double logsumexp = static_cast<double>(args.row_max[t]) + log_sum;
    loss += log_sum - static_cast<double>(args.sums[args.tokens + t]);
    squares += logsumexp * logsumexp;
  }
  loss = block_sum(loss);
  squares = block_sum(squares);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    args.result[0] = static_cast<float>(loss);
    args.result[1] = static_cast<float>(squares);
    return;
  }
  args.partial[2 * blockIdx.x] = loss;
  args.partial[2 * blockIdx.x + 1] = squares;
}

__global__ void join_cross_entropy_kernel(CrossEntropySums args, int64_t blocks) {
  double sum = 0;
  for (int64_t block = 0; block < blocks; ++block) sum += args.partial[2 * block + threadIdx.x];
  args.result[threadIdx.x] = static_cast<float>(sum);
}

}  // namespace

void add_partials(const Partials& args, Stream stream) {
  const dim3 threads(32, 32);
  const dim3 blocks(static_cast<unsigned>((args.columns + 31) / 32), args.third != nullptr    ? 3
                                                                     : args.second != nullptr ? 2
                                                                                              : 1);
  add_partials_kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(args);
}

int64_t column_sum_blocks(int64_t rows, int64_t columns) {
  // As many as all run at once: a second round of a few would take as long as the first. Each has
  // some hundred rows at least.
  const int64_t across = (columns + 255) / 256;
  return std::clamp<int64_t>(int64_t{kResident} * multiprocessors() / across, 1,
                             std::max<int64_t>((rows + 127) / 128, 1));
}

void add_column_sums(const ColumnSums& args, Stream stream) {
  if (args.rows == 0 || args.columns == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t down = column_sum_blocks(args.rows, args.columns);
  const int64_t rows_a_block = (args.rows + down - 1) / down;
  const dim3 threads(32, kRowLanes);
  with_packs(
      args.element,
      [&](auto element) {
        using T = decltype(element);
        return moves_in_packs<T>(args.columns, args.x) &&
               moves_in_packs<T>(args.copy_stride, args.copy);
      },
      [&](auto element, auto width) {
        const int64_t across = (args.columns + 32 * width - 1) / (32 * width);
        const dim3 blocks(static_cast<unsigned>(across), static_cast<unsigned>(down));
        if (args.copy != nullptr) {
          column_sums_kernel<decltype(element), width, true>
              <<<blocks, threads, 0, on>>>(args, rows_a_block);
        } else {
          column_sums_kernel<decltype(element), width, false>
              <<<blocks, threads, 0, on>>>(args, rows_a_block);
        }
      });
  add_partials({.partial = args.partial,
                .blocks = down,
                .stride = args.columns,
                .columns = args.columns,
                .first = args.total},
               stream);
}

int64_t cross_entropy_blocks(int64_t tokens) {
  return std::max<int64_t>((tokens + kTokensABlock - 1) / kTokensABlock, 1);
}

void cross_entropy_sums(const CrossEntropySums& args, Stream stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t blocks = cross_entropy_blocks(args.tokens);
  cross_entropy_kernel<<<static_cast<unsigned>(blocks), kSumThreads, 0, on>>>(args);
  if (blocks > 1) join_cross_entropy_kernel<<<1, 2, 0, on>>>(args, blocks);
}

}  // namespace tptrain::kernels::cuda
