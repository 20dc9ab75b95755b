// Philox in integer tensor arithmetic: the numbers of random/philox.h on whatever device the
// counters are, where no loop of ours runs (CUDA). Slow beside a kernel: some hundred operations.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

namespace tptrain::kernels {

/// Four words, int64 with values in [0, 2^32), that broadcast to one shape.
using PhiloxTensors = std::array<at::Tensor, 4>;

/// philox_rounds of every counter.
PhiloxTensors philox_tensor(PhiloxTensors counter, std::array<uint32_t, 2> key);

}  // namespace tptrain::kernels
