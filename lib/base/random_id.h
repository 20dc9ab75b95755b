// Names and seeds that nobody else has: the system's randomness, not the run's seed, since they are
// no part of what is trained.
#pragma once

#include <cstdint>
#include <string>

namespace tptrain {

/// 64 random bits (getrandom(2)). Throws InternalError where the system has none.
uint64_t random_word();
/// 128 random bits as 32 lower-case hex digits.
std::string random_id();

}  // namespace tptrain
