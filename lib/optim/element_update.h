// An element rule as an Update. Private to this folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optim/element_rules.h"
#include "optim/update_rule.h"

namespace tptrain::optim {

template <typename Rule>
const std::vector<std::string>& slot_names_of();

/// One pass reads and writes them all, in packs of one width: they have one type, that of moments.
template <typename Rule>
std::vector<Slot> slots_of(const config::OptimizerConfig& options) {
  std::vector<Slot> slots;
  for (const std::string& name : slot_names_of<Rule>())
    slots.push_back({.name = name, .dtype = scalar_type(options.moments_dtype)});
  return slots;
}

/// As UpdateRule::update_of.
template <typename Rule>
std::unique_ptr<Update> element_update(std::vector<UpdateRange> ranges,
                                       const UpdateSettings& settings);

}  // namespace tptrain::optim
