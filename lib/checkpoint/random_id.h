// Ids of saves: unique, not part of what is trained, so the system's randomness and not the run's
// seed.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tptrain::checkpoint {

/// 128 random bits as 32 lower-case hex digits.
std::string random_id();
/// Whether it is that many lower-case hex digits.
bool is_hex(std::string_view text, size_t digits);

}  // namespace tptrain::checkpoint
