// Help for a terminal of 80 columns.
#pragma once

#include <string>

namespace tptrain::apps {

/// `help` with its long lines broken: descriptions of options go on in their column, commands of
/// the examples behind a backslash, so that they can still be pasted.
std::string within_80_columns(const std::string& help);

}  // namespace tptrain::apps
