// One block a chunk, one thread eight packs of four, all on their way at once.
#include "kernels/cuda/multi_tensor.cuh"
#include "zero/cuda/passes.h"

namespace tptrain::zero::cuda {

namespace {

using namespace kernels::cuda;

constexpr int kPacks = kChunkElements / (kThreads * kPack);
static_assert(kPacks * kThreads * kPack == kChunkElements);
constexpr int kSumThreads = 1024;

/// The elements of a chunk that are this thread's, 0 behind its end.
struct Elements {
  float values[kPacks][kPack];

  template <bool kWhole, typename T>
  __device__ void load(const T* from, int chunk_count, bool packs) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int at = static_cast<int>(kPack) * (threadIdx.x + k * kThreads);
      load_four(from + at, kWhole ? static_cast<int>(kPack) : chunk_count - at, kWhole || packs,
                values[k]);
    }
  }
  __device__ Elements(const Gradient& tensor, const Chunk& chunk) {
    if (tensor.element == Element::fp32) {
      load_chunk(static_cast<const float*>(tensor.data), chunk);
    } else {
      load_chunk(static_cast<const __nv_bfloat16*>(tensor.data), chunk);
    }
  }
  template <typename T>
  __device__ void load_chunk(const T* tensor, const Chunk& chunk) {
    const T* from = in_global_memory(tensor) + chunk.begin;
    const bool packs = packs_begin_at(from);
    if (packs && chunk.count == kChunkElements) {
      load<true>(from, chunk.count, packs);
    } else {
      load<false>(from, chunk.count, packs);
    }
  }
};

/// Over the block; thread 0 gets it. In a fixed order.
template <int kBlockThreads>
__device__ double block_sum_fp64(double value) {
  __shared__ double warps[kBlockThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(~0u, value, offset);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
#pragma unroll
  for (int i = 0; i < kBlockThreads / 32; ++i) total += warps[i];
  return total;
}

__global__ void __launch_bounds__(kThreads) partial_kernel(SumsOfSquares args) {
  const Chunk chunk = args.chunks[blockIdx.x];
  const Gradient& tensor = args.tensors[chunk.tensor];
  if (holds_zeros(tensor.rows, chunk)) {
    if (threadIdx.x == 0) args.partial[blockIdx.x] = 0;
    return;
  }
  const Elements elements(tensor, chunk);
  double sums[kPack] = {};
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      const double value = elements.values[k][j];
      sums[j] = fma(value, value, sums[j]);
    }
  }
  const double total = block_sum_fp64<kThreads>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  if (threadIdx.x != 0) return;
  args.partial[blockIdx.x] = total;
  float* mark = args.marks[chunk.tensor];
  // Every block that comes here writes the same.
  if (mark != nullptr && !isfinite(total)) *mark = __uint_as_float(0x7f800000u);
}

// One block a tensor.
__global__ void __launch_bounds__(kSumThreads) found_kernel(SumsOfSquares args) {
  const FoundSquares found = args.found[blockIdx.x];
  double sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < found.count; i += kSumThreads) sum += found.of_pieces[i];
  const double total = block_sum_fp64<kSumThreads>(sum);
  if (threadIdx.x != 0) return;
  args.found_sums[blockIdx.x] = total;
  if (found.mark != nullptr && !isfinite(total)) *found.mark = __uint_as_float(0x7f800000u);
}

// One block a group.
__global__ void __launch_bounds__(kSumThreads) group_kernel(SumsOfSquares args) {
  const int64_t end = args.group_begins[blockIdx.x + 1];
  double sum = 0;
#pragma unroll 8
  for (int64_t i = args.group_begins[blockIdx.x] + threadIdx.x; i < end; i += kSumThreads)
    sum += args.partial[i];
  const int64_t found_end = args.found_begins[blockIdx.x + 1];
  for (int64_t i = args.found_begins[blockIdx.x] + threadIdx.x; i < found_end; i += kSumThreads)
    sum += args.found_sums[i];
  const double total = block_sum_fp64<kSumThreads>(sum);
  if (threadIdx.x == 0) args.sums[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads) marks_kernel(Marks args) {
  const Chunk chunk = args.chunks[blockIdx.x];
  const Elements elements(args.tensors[chunk.tensor], chunk);
  bool bad = false;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      // The exponent's bits are all ones in inf and nan alone.
      bad = bad || (__float_as_uint(elements.values[k][j]) & 0x7f800000u) == 0x7f800000u;
    }
  }
  // Every thread that comes here writes the same.
  if (bad) args.marks[chunk.tensor] = __uint_as_float(0x7f800000u);
}

// A warp a row.
__global__ void __launch_bounds__(kThreads) clear_rows_kernel(ClearRows args) {
  const int64_t row = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (row >= args.rows || args.written[row] == 0) return;
  __syncwarp();  // all have read the mark
  float* data = args.data + row * args.row_elements;
  for (int64_t i = threadIdx.x % 32; i < args.row_elements; i += 32) data[i] = 0.0f;
  if (threadIdx.x % 32 == 0) args.written[row] = 0;
}

}  // namespace

void sums_of_squares(const SumsOfSquares& args, Stream stream) {
  if (args.chunk_count > 0) {
    partial_kernel<<<static_cast<unsigned>(args.chunk_count), kThreads, 0,
                     static_cast<cudaStream_t>(stream)>>>(args);
  }
  if (args.found_count > 0) {
    found_kernel<<<static_cast<unsigned>(args.found_count), kSumThreads, 0,
                   static_cast<cudaStream_t>(stream)>>>(args);
  }
  group_kernel<<<static_cast<unsigned>(args.groups), kSumThreads, 0,
                 static_cast<cudaStream_t>(stream)>>>(args);
}

void mark_nonfinite(const Marks& args, Stream stream) {
  if (args.chunk_count == 0) return;
  marks_kernel<<<static_cast<unsigned>(args.chunk_count), kThreads, 0,
                 static_cast<cudaStream_t>(stream)>>>(args);
}

void clear_rows(const ClearRows& args, Stream stream) {
  if (args.rows == 0) return;
  constexpr int64_t kRows = kThreads / 32;
  clear_rows_kernel<<<static_cast<unsigned>((args.rows + kRows - 1) / kRows), kThreads, 0,
                      static_cast<cudaStream_t>(stream)>>>(args);
}

}  // namespace tptrain::zero::cuda
