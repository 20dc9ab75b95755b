// Whether what is printed may be coloured.
#pragma once

#include <string>
#include <string_view>

namespace tptrain {

/// `descriptor` is a terminal that is not called dumb, and NO_COLOR (no-color.org) is unset or
/// empty.
bool wants_colour(int descriptor);

enum class Colour { red, green, yellow, cyan, bold };
/// `text`, coloured where `on`.
std::string coloured(std::string_view text, Colour colour, bool on);

/// An error's message for `descriptor`, its kind ("config error:") in red where that may be.
std::string error_text(const std::string& message, int descriptor);

}  // namespace tptrain
