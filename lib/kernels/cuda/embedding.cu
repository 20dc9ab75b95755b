// Rows of an embedding's table, and their gradient without atomics: tokens are taken in the order
// of their ids, kChunk of them a block, which adds up each run of one id in fp32. A run that lies
// within a chunk joins its row of the table at once; a longer one leaves a partial sum a chunk,
// which a second launch adds up. So a token that makes up a tenth of the batch does not become one
// long sum.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

namespace {

constexpr int kColumnThreads = 128;
constexpr int kChunk = 32;      // tokens of a block
constexpr int kRowsAtOnce = 8;  // loads in flight of a thread

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    rows_kernel(EmbeddingRows args, uint32_t packs_a_row, int64_t packs) {
  const int64_t pack = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (pack >= packs) return;
  const int64_t token =
      packs <= UINT32_MAX ? static_cast<uint32_t>(pack) / packs_a_row : pack / int64_t{packs_a_row};
  const int64_t column = (pack - token * packs_a_row) * kWidth;
  const int64_t row = args.ids[token] - args.vocab_begin;
  const bool here = row >= 0 && row < args.vocab;
  const T* table = static_cast<const T*>(args.table) + row * args.hidden + column;
  store_pack(static_cast<T*>(args.output) + token * args.hidden + column,
             here ? load_pack<T, kWidth>(table) : zero_pack<T, kWidth>());
}

template <int kWidth>
__device__ void add_to(float* row, const float (&sums)[kWidth]) {
  float there[kWidth];
  load_floats<kWidth>(row, there);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) there[j] += sums[j];
  store_floats<kWidth>(row, there);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads) chunk_kernel(EmbeddingGradient args) {
  __shared__ int ids[kChunk + 2];  // with a neighbour on either side
  __shared__ int64_t rows[kChunk];
  const int64_t chunk = blockIdx.x;
  const int64_t begin = chunk * kChunk;
  const int count =
      static_cast<int>(begin + kChunk < args.tokens ? int64_t{kChunk} : args.tokens - begin);
  for (int i = threadIdx.x; i < count + 2; i += kColumnThreads) {
    const int64_t at = begin + i - 1;
    ids[i] = at >= 0 && at < args.tokens ? args.sorted_ids[at] : -1;  // no id is negative
    if (i >= 1 && i <= count) rows[i - 1] = args.order[at];
  }
  __syncthreads();
  const int64_t column = (int64_t{blockIdx.y} * kColumnThreads + threadIdx.x) * kWidth;
  if (column >= args.hidden) return;
  const T* grad = static_cast<const T*>(args.grad_output) + column;
  // Of the run that goes on from the chunk before, and of the one that goes on into the next.
  float* head = args.partial + 2 * chunk * args.hidden + column;
  float* tail = head + args.hidden;

  float sums[kWidth] = {};
  bool began_here = ids[1] != ids[0];
  for (int first = 0; first < count; first += kRowsAtOnce) {
    Pack<T, kWidth> packs[kRowsAtOnce];
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int i = first + r;
      const int64_t row = i < count ? int64_t{ids[i + 1]} - args.vocab_begin : -1;
      packs[r] = row >= 0 && row < args.vocab ? load_pack<T, kWidth>(grad + rows[i] * args.hidden)
                                              : zero_pack<T, kWidth>();
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      const int i = first + r;
      if (i >= count) break;
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sums[j] += wide(packs[r].values[j]);
      const bool last = i + 1 == count;
      const bool ends = ids[i + 2] != ids[i + 1];
      if (!ends && !last) continue;
      const int64_t row = int64_t{ids[i + 1]} - args.vocab_begin;
      if (row >= 0 && row < args.vocab) {
        if (!began_here) {
          store_floats<kWidth>(head, sums);
        } else if (ends) {
          add_to<kWidth>(args.table_grad + row * args.hidden + column, sums);
        } else {
          store_floats<kWidth>(tail, sums);
        }
      }
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sums[j] = 0.0f;
      began_here = true;
    }
  }
}

// One block a chunk whose last run goes on: it adds that run's sums, chunk by chunk.
template <int kWidth>
__global__ void __launch_bounds__(kColumnThreads) join_kernel(EmbeddingGradient args) {
  const int64_t chunk = blockIdx.x;
  const int64_t begin = chunk * kChunk;
  const int64_t end = begin + kChunk;
  if (end >= args.tokens) return;
  const int id = args.sorted_ids[end - 1];
  const int64_t row = int64_t{id} - args.vocab_begin;
  if (row < 0 || row >= args.vocab || args.sorted_ids[end] != id) return;
  if (begin > 0 && args.sorted_ids[begin - 1] == id) return;  // it began before this chunk
  int64_t low = end;                                          // the first position behind the run
  int64_t high = args.tokens;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (args.sorted_ids[middle] == id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  const int64_t chunks = (low - 1) / kChunk - chunk;  // behind this one
  const int64_t column = (int64_t{blockIdx.y} * kColumnThreads + threadIdx.x) * kWidth;
  if (column >= args.hidden) return;
  const float* tail = args.partial + (2 * chunk + 1) * args.hidden + column;
  float sums[kWidth];
  load_floats<kWidth>(tail, sums);
  const float* head = tail + args.hidden;  // of the next chunk
#pragma unroll 8
  for (int64_t i = 0; i < chunks; ++i) {
    float next[kWidth];
    load_floats<kWidth>(head + 2 * i * args.hidden, next);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sums[j] += next[j];
  }
  add_to<kWidth>(args.table_grad + row * args.hidden + column, sums);
}

}  // namespace

void embedding_rows(const EmbeddingRows& args, Stream stream) {
  if (args.tokens * args.hidden == 0) return;
  with_packs(
      args.element,
      [&](auto type) {
        return moves_in_packs<decltype(type)>(args.hidden, args.table, args.output);
      },
      [&](auto type, auto width) {
        const int64_t packs = args.tokens * args.hidden / width;
        rows_kernel<decltype(type), width>
            <<<static_cast<unsigned>((packs + kThreads - 1) / kThreads), kThreads, 0,
               static_cast<cudaStream_t>(stream)>>>(
                args, static_cast<uint32_t>(args.hidden / width), packs);
      });
}

int64_t embedding_chunks(int64_t tokens) { return (tokens + kChunk - 1) / kChunk; }

void embedding_gradient(const EmbeddingGradient& args, Stream stream) {
  if (args.tokens * args.hidden == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  const auto chunks = static_cast<unsigned>(embedding_chunks(args.tokens));
  with_packs(
      args.element,
      [&](auto type) {
        return moves_in_packs<decltype(type)>(args.hidden, args.grad_output, args.table_grad,
                                              args.partial);
      },
      [&](auto type, auto width) {
        const int64_t columns = kColumnThreads * int64_t{width};
        const dim3 blocks(chunks, static_cast<unsigned>((args.hidden + columns - 1) / columns));
        chunk_kernel<decltype(type), width><<<blocks, kColumnThreads, 0, on>>>(args);
        if (chunks > 1) join_kernel<width><<<blocks, kColumnThreads, 0, on>>>(args);
      });
}

}  // namespace tptrain::kernels::cuda
