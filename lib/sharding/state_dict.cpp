// Names of the kinds of state.
#include "sharding/state_dict.h"

#include <algorithm>

namespace tptrain::sharding {

bool is_state_kind(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

bool kind_before(const StateKind& a, const StateKind& b) {
  if ((a == kMaster) != (b == kMaster)) return a == kMaster;
  return a < b;
}

}  // namespace tptrain::sharding
