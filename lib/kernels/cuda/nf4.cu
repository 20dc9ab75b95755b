// NF4 -> fp32 or bf16: one thread eight elements, which are 4 bytes of codes and share a scale.
// Sums and products are rounded one by one, as on the CPU.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/nf4.h"

namespace tptrain::kernels::cuda {

namespace {

constexpr int kAtOnce = 8;
constexpr int kBlock = 64;
constexpr int kGroup = 256;

template <typename T>
__device__ void write_short(const Nf4& matrix, int64_t begin, float scale, const float* values,
                            T* out) {
  for (int64_t i = begin; i < min(begin + kAtOnce, matrix.elements); ++i) {
    const uint8_t pair = matrix.codes[i / 2];
    out[i] = narrow<T>(__fmul_rn(values[i % 2 == 0 ? pair >> 4 : pair & 15], scale));
  }
}

template <typename T>
__device__ void write_eight(uint32_t codes, float scale, const float* values, T* out) {
  constexpr int kWidth = 16 / sizeof(T);
#pragma unroll
  for (int first = 0; first < kAtOnce; first += kWidth) {
    Pack<T, kWidth> pack;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      // Little-endian: the byte of elements 2k and 2k + 1 is the k-th from below.
      const int at = first + i;
      const uint32_t code = codes >> (at / 2 * 8 + (at % 2 == 0 ? 4 : 0)) & 15;
      pack.values[i] = narrow<T>(__fmul_rn(values[code], scale));
    }
    store_pack<T, kWidth>(out + first, pack);
  }
}

template <typename T>
__global__ void nf4_kernel(Nf4 matrix, T* out, bool aligned) {
  __shared__ float values[16];
  if (threadIdx.x < 16) values[threadIdx.x] = matrix.values[threadIdx.x];
  __syncthreads();
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kAtOnce;
  if (begin >= matrix.elements) return;
  const int64_t block = begin / kBlock;
  const int64_t whole = matrix.first + block / matrix.run * matrix.stride + block % matrix.run;
  const float scaled = __fmul_rn(matrix.map[matrix.scales[block]], matrix.groups[whole / kGroup]);
  const float scale = __fadd_rn(scaled, matrix.offset);
  if (!aligned || begin + kAtOnce > matrix.elements) {
    return write_short(matrix, begin, scale, values, out);
  }
  const auto codes = *reinterpret_cast<const uint32_t*>(matrix.codes + begin / 2);
  write_eight(codes, scale, values, out + begin);
}

template <typename T>
void launch(const Nf4& matrix, void* out, cudaStream_t stream) {
  constexpr int64_t kElementsABlock = int64_t{kThreads} * kAtOnce;
  const auto blocks =
      static_cast<unsigned>((matrix.elements + kElementsABlock - 1) / kElementsABlock);
  const bool aligned = reinterpret_cast<uintptr_t>(out) % 16 == 0;
  nf4_kernel<T><<<blocks, kThreads, 0, stream>>>(matrix, static_cast<T*>(out), aligned);
}

}  // namespace

void nf4_values(const Nf4& matrix, Element element, void* out, Stream stream) {
  const auto cuda_stream = static_cast<cudaStream_t>(stream);
  if (element == Element::bf16) {
    launch<__nv_bfloat16>(matrix, out, cuda_stream);
  } else {
    launch<float>(matrix, out, cuda_stream);
  }
}

}  // namespace tptrain::kernels::cuda
