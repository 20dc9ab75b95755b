// The arrays of a range in device code, from one of its elements on.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/multi_tensor.cuh"
#include "optim/cuda/element_update.h"

namespace tptrain::optim::cuda {

using Bf16 = __nv_bfloat16;

template <typename Rule, typename Master, typename Slot, typename Gradient>
struct Arrays {
  Master* master;
  Slot* slots[Rule::kSlots];
  const Gradient* gradient;
  Bf16* weights;  // or null

  __device__ Arrays(const Range& range, int64_t begin)
      : master(kernels::cuda::in_global_memory(static_cast<Master*>(range.master)) + begin),
        gradient(kernels::cuda::in_global_memory(static_cast<const Gradient*>(range.gradient)) +
                 begin),
        weights(range.weights == nullptr
                    ? nullptr
                    : kernels::cuda::in_global_memory(static_cast<Bf16*>(range.weights)) + begin) {
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s)
      slots[s] = kernels::cuda::in_global_memory(static_cast<Slot*>(range.slots[s])) + begin;
  }
  __device__ bool in_packs() const {
    bool all = kernels::cuda::packs_begin_at(master) && kernels::cuda::packs_begin_at(gradient) &&
               kernels::cuda::packs_begin_at(weights);
#pragma unroll
    for (int s = 0; s < Rule::kSlots; ++s) all = all && kernels::cuda::packs_begin_at(slots[s]);
    return all;
  }
};

}  // namespace tptrain::optim::cuda
