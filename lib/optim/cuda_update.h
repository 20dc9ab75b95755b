// AdamW of ranges on CUDA: their tables in device memory, made once, and the launches of an update.
// begin() and apply() are AdamW's. Private to this folder.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/device_table.h"
#include "optim/adamw.h"
#include "optim/cuda/adamw.h"

namespace tptrain::optim {

class CudaUpdate {
 public:
  /// Ranges that are known to fit; those of part p: [begins[p], begins[p + 1]).
  CudaUpdate(const std::vector<AdamWRange>& ranges, const std::vector<size_t>& begins,
             at::Device device, uint64_t seed);
  void begin(const AdamWStep& step) const;
  void apply(int part, const AdamWStep& step) const;

 private:
  /// A part's ranges of one pair of types.
  struct Pass {
    kernels::cuda::Element master;
    kernels::cuda::Element moments;
    kernels::cuda::DeviceTable<cuda::Range> ranges;
    kernels::cuda::DeviceTable<kernels::cuda::Chunk> chunks;
  };
  kernels::cuda::DeviceTable<AdamWOptions> options_;  // each once
  kernels::cuda::DeviceTable<AdamWConstants> constants_;
  std::vector<std::vector<Pass>> passes_;  // of each part
};

}  // namespace tptrain::optim
