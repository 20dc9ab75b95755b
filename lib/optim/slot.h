// What an update rule keeps of each element beside its master. Checkpoints call it by its name;
// whoever allocates, counts or copies it reads its type here.
#pragma once

#include <c10/core/ScalarType.h>

#include <string>
#include <vector>

#include "config/run_config.h"

namespace tptrain::optim {

struct Slot {
  std::string name;                   // "exp_avg"
  at::ScalarType dtype = at::kFloat;  // as it lies in memory: fp32 or bf16
};

inline at::ScalarType scalar_type(config::Dtype dtype) {
  return dtype == config::Dtype::bf16 ? at::kBFloat16 : at::kFloat;
}

inline std::vector<std::string> names_of(const std::vector<Slot>& slots) {
  std::vector<std::string> names;
  for (const Slot& slot : slots) names.push_back(slot.name);
  return names;
}

}  // namespace tptrain::optim
