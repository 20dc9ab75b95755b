// AdamW where no loop of ours runs (CUDA): ATen's fused kernel on fp32 pieces of bounded size,
// predicated on the device. Private to this folder; also runs on the CPU, for the tests.
#pragma once

#include "optim/adamw.h"

namespace tptrain::optim {

/// adamw_update on ranges that are known to fit.
void adamw_by_composition(std::vector<AdamWRange>& ranges, at::Tensor& updates,
                          const at::Tensor& gradient_scale, const at::Tensor& finite,
                          const AdamWStep& step);

}  // namespace tptrain::optim
