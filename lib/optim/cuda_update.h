// An element rule over ranges on CUDA: their tables in device memory, made once, and the launches
// of an update. begin() and apply() are Update's. Private to this folder.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cuda/device_table.h"
#include "optim/cuda/element_update.h"
#include "optim/update_rule.h"

namespace tptrain::optim {

template <typename Rule>
class CudaUpdate {
 public:
  /// Ranges that are known to fit; those of part p: [begins[p], begins[p + 1]).
  CudaUpdate(const std::vector<UpdateRange>& ranges, const std::vector<size_t>& begins,
             at::Device device, uint64_t seed);
  void begin(const UpdateStep& step) const;
  void apply(int part, const UpdateStep& step) const;

 private:
  /// A part's ranges of the same types.
  struct Pass {
    kernels::cuda::Element master;
    kernels::cuda::Element slots;
    kernels::cuda::Element gradient;
    kernels::cuda::DeviceTable<cuda::Range> ranges;
    std::vector<cuda::LaunchedRanges> words;
    kernels::cuda::DeviceTable<kernels::cuda::Chunk> chunks;  // of what is not in `words`
  };
  kernels::cuda::DeviceTable<RuleOptions> options_;  // each once
  kernels::cuda::DeviceTable<typename Rule::Constants> constants_;
  kernels::cuda::DeviceTable<uint32_t*> amax_;  // each once
  std::vector<std::vector<Pass>> passes_;       // of each part
};

}  // namespace tptrain::optim
