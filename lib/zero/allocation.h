// A tensor that is allocated for good, declared before it is: the code that allocates it and the
// forecast of memory (memory.h) read one declaration.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <cstdint>
#include <vector>

namespace tptrain::zero {

struct Allocation {
  std::vector<int64_t> shape;
  at::ScalarType dtype = at::kFloat;

  int64_t bytes() const {
    auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
    for (const int64_t size : shape) bytes *= size;
    return bytes;
  }
  at::Tensor zeros(at::Device device) const {
    return at::zeros(shape, at::TensorOptions().dtype(dtype).device(device));
  }
};

}  // namespace tptrain::zero
