// Many rows as few points, so that a page of a long run stays small: equal parts of the rows, each
// with its mean, least and most.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace tptrain::report {

/// Where each part of `rows` rows begins, and at last where they end: parts of almost equal size,
/// `most` at most.
std::vector<size_t> parts_of(size_t rows, size_t most);

struct Condensed {
  std::vector<double> mean;  // one a part; NaN where it has no number
  std::vector<double> low;
  std::vector<double> high;
};
Condensed condense(std::span<const double> values, const std::vector<size_t>& parts);

}  // namespace tptrain::report
