// For the files that name parameters in their messages.
#pragma once

#include <string>
#include <vector>

#include "parameters/parameter.h"

namespace tptrain::model {

/// The names of all tensors of which `parameter` holds slices: of q, k and v in a packed product.
inline std::vector<std::string> names_of(const parameters::Parameter& parameter) {
  std::vector<std::string> names;
  for (const parameters::NamedSlice& slice : parameter.slices) names.push_back(slice.spec.name);
  return names;
}

}  // namespace tptrain::model
