// Ids of saves: unique, not part of what is trained, so the system's randomness and not the run's
// seed.
#pragma once

#include <string>

namespace tptrain::checkpoint {

/// 128 random bits as 32 lower-case hex digits.
std::string random_id();

}  // namespace tptrain::checkpoint
