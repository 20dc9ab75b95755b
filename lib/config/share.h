// A part of something as a run file writes it: a share or a number.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace tptrain::config {

struct Share {
  double fraction = 0;  // of all; or:
  int64_t count = 0;
};

/// "5%" (above 0, at most 100) or "1000" (at least 1); nothing where it is neither.
std::optional<Share> share_of(std::string_view text);

}  // namespace tptrain::config
