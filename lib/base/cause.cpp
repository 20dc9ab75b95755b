#include "base/cause.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"

namespace tptrain {

std::string cause_of(const std::exception& error) {
  std::string text = error.what();
  constexpr std::string_view kMark = " error: ";
  const size_t mark = text.find(kMark);
  // "checkpoint error: " and the like; another library's messages have no kind.
  if (dynamic_cast<const Error*>(&error) != nullptr && mark != text.npos && mark < 16)
    text.erase(0, mark + kMark.size());
  text.erase(std::min(text.find('\n'), text.size()));
  if (text.ends_with('.')) text.pop_back();
  return text;
}

}  // namespace tptrain
