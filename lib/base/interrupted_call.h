// System calls that a signal may interrupt before they have done anything.
#pragma once

#include <cerrno>

namespace tptrain {

/// Makes the call, and again as long as it says EINTR. Not for close(2): Linux has released the
/// descriptor even then.
template <typename Call>
auto until_not_interrupted(const Call& call) {
  while (true) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

}  // namespace tptrain
