// How long a rank may hang before the run file is known to all.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace tptrain::train {

inline constexpr int64_t kMaxRunFileBytes = 1 << 24;

/// train.hang_timeout_s for the time before the ranks can talk: what the run file says, where this
/// rank can read it, else the default. Never throws: what is wrong with the file is told later, by
/// all ranks.
std::chrono::milliseconds early_hang_timeout(const std::string& config_path,
                                             const std::vector<std::string>& overrides);

}  // namespace tptrain::train
