// An element rule as an Update. Private to this folder.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optim/element_rules.h"
#include "optim/update_rule.h"

namespace tptrain::optim {

template <typename Rule>
const std::vector<std::string>& slots_of();

/// As UpdateRule::update_of.
template <typename Rule>
std::unique_ptr<Update> element_update(std::vector<UpdateRange> ranges,
                                       const UpdateSettings& settings);

}  // namespace tptrain::optim
