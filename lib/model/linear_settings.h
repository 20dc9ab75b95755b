// What the linears of all layers have in common.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "model/adapter.h"
#include "parameters/parameter.h"
#include "tensor_parallel/fp8_linear.h"

namespace tptrain::model {

struct LinearSettings {
  /// What a replicated parameter behind the region gets: partial on sequence slices.
  parameters::TpGradient replicated_gradient = parameters::TpGradient::whole;
  const tensor_parallel::Fp8Settings* fp8 = nullptr;  // null: in the compute dtype
  const Adapters* adapters = nullptr;                 // null: none

  /// fp8, where the sizes [out, in] that a linear has on each tp rank allow it: ranks whose casts
  /// meet must all cast. size(rank) -> {out, in}
  template <typename Size>
  const tensor_parallel::Fp8Settings* fp8_of(int tp_size, const Size& size) const {
    for (int rank = 0; rank < tp_size; ++rank) {
      const auto [out, in] = size(rank);
      if (!tensor_parallel::Fp8Linear::takes(out, in)) return nullptr;
    }
    return fp8;
  }

  std::string adapter_of(const std::string& linear) const {
    return adapters == nullptr ? "" : adapters->of(linear);
  }
  tensor_parallel::LowRank low_rank() const {
    return adapters == nullptr ? tensor_parallel::LowRank{} : adapters->low_rank();
  }
};

}  // namespace tptrain::model
