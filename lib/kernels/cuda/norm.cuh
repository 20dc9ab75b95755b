// What the two files of norms share: the one expression of an element of the output, and the
// kernels of rows that do not fit into registers (norm_long.cu).
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"

namespace tptrain::kernels::cuda {

// With its roundings written out, so that no kernel fuses what another does not, and norm_again
// repeats norm_forward bit for bit.
template <bool kLayer>
__device__ float normed_output(float x, float mean, float inverse, float weight, float bias) {
  if (kLayer) return __fmaf_rn(__fmul_rn(__fsub_rn(x, mean), inverse), weight, bias);
  return __fmul_rn(__fmul_rn(x, inverse), weight);
}

/// Whether rows move in loads of 16 bytes, or element by element.
enum class Loads { packs, elements };

// As norm_forward, norm_again and norm_backward's first launch, for rows of any size.
void long_norm_forward(const NormForward& args, Loads loads, Stream stream);
void long_norm_again(const NormForward& args, Loads loads, Stream stream);
void long_norm_backward(const NormBackward& args, Loads loads, int64_t blocks, Stream stream);

}  // namespace tptrain::kernels::cuda
