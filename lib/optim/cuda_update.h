// AdamW of ranges on CUDA: their tables in device memory, made once, and the launches of an update.
// Private to this folder.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/device_table.h"
#include "optim/adamw.h"
#include "optim/cuda/adamw.h"

namespace tptrain::optim {

class CudaUpdate {
 public:
  /// Ranges that are known to fit.
  CudaUpdate(const std::vector<AdamWRange>& ranges, at::Device device, uint64_t seed);
  void operator()(const AdamWStep& step) const;

 private:
  /// The ranges of one pair of types.
  struct Pass {
    kernels::cuda::Element master;
    kernels::cuda::Element moments;
    kernels::cuda::DeviceTable<cuda::Range> ranges;
    kernels::cuda::DeviceTable<kernels::cuda::Chunk> chunks;
  };
  kernels::cuda::DeviceTable<AdamWOptions> options_;  // each once
  kernels::cuda::DeviceTable<AdamWConstants> constants_;
  std::vector<Pass> passes_;
};

}  // namespace tptrain::optim
