// Text that came from a file, a name or an option, made fit for a terminal and a log: what would
// move the cursor, recolour, hide or turn around what is printed is shown as an escape. Nothing
// else is changed, so that ordinary text in any script stays as it is.
#pragma once

#include <string>
#include <string_view>

namespace tptrain {

/// Control characters (C0 but tab and newline, DEL, C1), those that change the direction of the
/// text, line and paragraph separators, and bytes that are no UTF-8, as \x1b or \u202e.
std::string printable(std::string_view text);
/// The same, and newline and tab too: for a name that stands within a line (a path, a model_type).
/// One that could begin a line of its own could say what the program never said.
std::string printable_line(std::string_view text);

}  // namespace tptrain
