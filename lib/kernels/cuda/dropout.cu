// Dropout in place: one thread 16 bytes, whose random words it draws for itself.
#include <algorithm>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "random/philox.cuh"

namespace tptrain::kernels::cuda {

namespace {

__device__ inline uint32_t word_of(const uint4& words, uint32_t index) {
  return index == 0 ? words.x : index == 1 ? words.y : index == 2 ? words.z : words.w;
}

// Rows are counted from `first_row` on; packs of one launch fit 32 bit.
template <typename T, int kWidth>
__global__ void dropout_kernel(DropoutRows args, int64_t first_row, uint32_t packs,
                               uint32_t packs_a_row) {
  const uint32_t pack = blockIdx.x * kThreads + threadIdx.x;
  if (pack >= packs) return;
  const int64_t row = first_row + pack / packs_a_row;
  const int64_t element = int64_t{pack % packs_a_row} * kWidth;
  const auto sample = static_cast<uint32_t>(args.first_sample + row % args.batch);
  const auto position =
      static_cast<uint32_t>(args.first_position + row / args.batch % args.positions);
  const auto head = static_cast<uint32_t>(args.first_head + row / args.batch / args.positions);
  T* at = static_cast<T*>(args.x) + row * args.width + element;
  float values[kWidth];
  load<T, kWidth>(at, values);
  const int64_t index = args.first_element + element;
#pragma unroll
  for (int i = 0; i < kWidth; i += 4) {
    const uint4 words = random::philox_rounds(
        make_uint4(static_cast<uint32_t>((index + i) / 4), position, sample, head), args.key[0],
        args.key[1]);
#pragma unroll
    for (int j = 0; j < (kWidth < 4 ? kWidth : 4); ++j) {
      // Packs begin with a counter's first word; a single element is anywhere among them.
      const uint32_t word =
          word_of(words, kWidth == 1 ? static_cast<uint32_t>(index % 4) : static_cast<uint32_t>(j));
      values[i + j] = word < args.threshold ? 0.0f : values[i + j] * args.scale;
    }
  }
  store<T, kWidth>(at, values);
}

}  // namespace

void dropout(const DropoutRows& args, Stream stream) {
  if (args.rows == 0 || args.width == 0) return;
  with_packs(
      args.element,
      [&](auto type) {
        return args.first_element % 4 == 0 && moves_in_packs<decltype(type)>(args.width, args.x);
      },
      [&](auto type, auto width) {
        constexpr int64_t kMostPacks = int64_t{1} << 31;
        const int64_t packs_a_row = args.width / width;
        const int64_t slab = std::max<int64_t>(kMostPacks / packs_a_row, 1);
        for (int64_t first = 0; first < args.rows; first += slab) {
          const int64_t packs = std::min(slab, args.rows - first) * packs_a_row;
          const auto blocks = static_cast<unsigned>((packs + kThreads - 1) / kThreads);
          dropout_kernel<decltype(type), width>
              <<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
                  args, first, static_cast<uint32_t>(packs), static_cast<uint32_t>(packs_a_row));
        }
      });
}

}  // namespace tptrain::kernels::cuda
