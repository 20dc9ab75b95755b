#include "base/failure_tally.h"

#include <utility>

namespace tptrain {

bool FailureTally::note(std::string reason, Time now) {
  ++count_;
  last_reason_ = std::move(reason);
  if (last_said_ && now - *last_said_ < kSilence) return false;
  last_said_ = now;
  return true;
}

}  // namespace tptrain
