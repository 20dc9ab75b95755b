#include "base/terminal_colour.h"

#include <unistd.h>

#include <cstdlib>

#include "base/text.h"

namespace tptrain {
namespace {

const char* code_of(Colour colour) {
  switch (colour) {
    case Colour::red:
      return "31";
    case Colour::green:
      return "32";
    case Colour::yellow:
      return "33";
    case Colour::cyan:
      return "36";
    case Colour::bold:
      return "1";
  }
  return "0";
}

}  // namespace

bool wants_colour(int descriptor) {
  const char* no_colour = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  if (no_colour != nullptr && *no_colour != '\0') return false;
  if (terminal == nullptr || std::string_view(terminal) == "dumb") return false;
  return ::isatty(descriptor) == 1;
}

std::string error_text(const std::string& message, int descriptor) {
  constexpr std::string_view kKind = " error:";
  const size_t end = message.find(kKind);
  if (!wants_colour(descriptor) || end == std::string::npos || end > message.find('\n'))
    return message;
  const size_t length = end + kKind.size();
  return coloured(message.substr(0, length), Colour::red, true) + message.substr(length);
}

std::string coloured(std::string_view text, Colour colour, bool on) {
  return on ? cat("\x1b[", code_of(colour), "m", text, "\x1b[0m") : std::string(text);
}

}  // namespace tptrain
