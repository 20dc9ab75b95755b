// Lengths of time as a run file writes them.
#pragma once

#include <optional>
#include <string_view>

namespace tptrain::config {

/// Seconds of "90s", "30m", "4h", "2d", "1h30m"; nothing where it is none of these or not above 0.
std::optional<double> seconds_of(std::string_view text);

}  // namespace tptrain::config
