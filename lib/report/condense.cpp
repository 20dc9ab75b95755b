#include "report/condense.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tptrain::report {

std::vector<size_t> parts_of(size_t rows, size_t most) {
  const size_t parts = std::min(rows, most);
  std::vector<size_t> begins;
  for (size_t part = 0; part <= parts; ++part)
    begins.push_back(parts == 0 ? 0 : part * rows / parts);
  return begins;
}

Condensed condense(std::span<const double> values, const std::vector<size_t>& parts) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  Condensed out;
  for (size_t part = 0; part + 1 < parts.size(); ++part) {
    double sum = 0, low = kNone, high = kNone;
    int count = 0;
    for (const double value : values.subspan(parts[part], parts[part + 1] - parts[part])) {
      if (!std::isfinite(value)) continue;
      sum += value;
      ++count;
      low = std::fmin(low, value);
      high = std::fmax(high, value);
    }
    out.mean.push_back(count > 0 ? sum / count : kNone);
    out.low.push_back(low);
    out.high.push_back(high);
  }
  return out;
}

}  // namespace tptrain::report
