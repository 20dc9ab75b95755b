// A gradient as the passes over many of them are told of it.
#pragma once

#include <ATen/core/Tensor.h>

#include "zero/cuda/passes.h"

namespace tptrain::zero {

inline cuda::Gradient row_of(const at::Tensor& gradient) {
  return {.data = gradient.const_data_ptr(),
          .element =
              gradient.scalar_type() == at::kBFloat16 ? cuda::Element::bf16 : cuda::Element::fp32};
}

}  // namespace tptrain::zero
