#include "config/share.h"

#include <charconv>

namespace tptrain::config {

std::optional<Share> share_of(std::string_view text) {
  const char* const end = text.data() + text.size();
  Share share;
  if (text.ends_with('%')) {
    double percent = 0;
    const auto [at, error] =
        std::from_chars(text.data(), end - 1, percent, std::chars_format::fixed);
    if (error != std::errc{} || at != end - 1 || !(percent > 0) || percent > 100)
      return std::nullopt;
    share.fraction = percent / 100;
    return share;
  }
  const auto [at, error] = std::from_chars(text.data(), end, share.count);
  if (error != std::errc{} || at != end || share.count < 1) return std::nullopt;
  return share;
}

}  // namespace tptrain::config
