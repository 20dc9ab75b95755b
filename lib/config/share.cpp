#include "config/share.h"

#include <charconv>

#include "base/text.h"

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

std::string hint_for_share(const std::string& text) {
  double fraction = 0;
  const auto [at, error] =
      std::from_chars(text.data(), text.data() + text.size(), fraction, std::chars_format::fixed);
  if (error != std::errc{} || at != text.data() + text.size() || !(fraction > 0) || fraction >= 1)
    return "";
  std::string percent = fixed(100 * fraction, 6);
  percent.erase(percent.find_last_not_of('0') + 1);
  if (percent.ends_with('.')) percent.pop_back();
  return cat("Write ", percent, "%.");
}

}  // namespace tptrain::config
