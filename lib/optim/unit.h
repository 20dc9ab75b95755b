// In what an update rule must see a parameter.
#pragma once

namespace tptrain::optim {

enum class Unit {
  element,
  matrix,  // each global tensor of it, never packed or cut
};

}  // namespace tptrain::optim
