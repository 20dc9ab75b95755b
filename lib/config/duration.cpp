#include "config/duration.h"

#include <charconv>

namespace tptrain::config {

namespace {

double seconds_of_unit(char unit) {
  switch (unit) {
    case 's':
      return 1;
    case 'm':
      return 60;
    case 'h':
      return 3600;
    case 'd':
      return 86400;
    default:
      return 0;
  }
}

}  // namespace

std::optional<double> seconds_of(std::string_view text) {
  double total = 0;
  while (!text.empty()) {
    double count = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), count, std::chars_format::fixed);
    const auto digits = static_cast<size_t>(end - text.data());
    if (error != std::errc{} || count < 0 || digits == text.size()) return std::nullopt;
    const double unit = seconds_of_unit(text[digits]);
    if (unit == 0) return std::nullopt;
    total += count * unit;
    text.remove_prefix(digits + 1);
  }
  constexpr double kTenYears = 3650.0 * 86400;  // beyond it a clock overflows
  return total > 0 && total <= kTenYears ? std::optional(total) : std::nullopt;
}

}  // namespace tptrain::config
