// A part of something as a run file writes it: a share or a number.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tptrain::config {

struct Share {
  double fraction = 0;  // of all; or:
  int64_t count = 0;
};

/// "5%" (above 0, at most 100) or "1000" (at least 1); nothing where it is neither.
std::optional<Share> share_of(std::string_view text);

/// How `text`, which is none, was meant where it is a fraction, 0.05: "Write 5%."; else "".
std::string hint_for_share(const std::string& text);

}  // namespace tptrain::config
