// What the linears of all layers have in common.
#pragma once

#include "model/adapter.h"
#include "parameters/parameter.h"
#include "tensor_parallel/fp8_linear.h"

namespace tptrain::model {

struct LinearSettings {
  /// What a replicated parameter behind the region gets: partial on sequence slices.
  parameters::TpGradient replicated_gradient = parameters::TpGradient::whole;
  const tensor_parallel::Fp8Settings* fp8 = nullptr;  // null: in the compute dtype
  const Adapters* adapters = nullptr;                 // null: none

  std::string adapter_of(const std::string& linear) const {
    return adapters == nullptr ? "" : adapters->of(linear);
  }
  tensor_parallel::LowRank low_rank() const {
    return adapters == nullptr ? tensor_parallel::LowRank{} : adapters->low_rank();
  }
};

}  // namespace tptrain::model
