// Text of a run's files, in which anything may stand, for a page or a terminal.
#pragma once

#include <string>
#include <string_view>

#include "base/printable.h"
#include "base/utf8.h"

namespace tptrain::report {

/// Of valid UTF-8, without control characters.
inline std::string shown_line(std::string_view text) {
  return printable_line(replace_invalid_utf8(text));
}

}  // namespace tptrain::report
