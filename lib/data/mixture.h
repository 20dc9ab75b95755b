// Which source the n-th sequence of a mixture comes from: a pure function of n, so that any layout
// and any resume agree on it. After any number of sequences each source has had its part of them to
// within one. Knows weights alone, neither files nor sequences.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tptrain::data {

class MixtureSchedule {
 public:
  /// Weights above 0, in any unit. The schedule repeats after their sum in whole numbers, and
  /// memory goes with that: 6 bytes a sequence of one period. Throws ConfigError where that is more
  /// than kMostInPeriod.
  explicit MixtureSchedule(std::span<const double> weights);

  struct Turn {
    int32_t source = 0;
    int64_t ordinal = 0;  // which of the sequences that this source gives, from 0
  };
  Turn operator()(int64_t index) const;
  /// How many of the first `turns` each source gives.
  std::vector<int64_t> counts(int64_t turns) const;
  int64_t period() const { return static_cast<int64_t>(sources_.size()); }

  static constexpr int64_t kMostInPeriod = 10'000'000;

 private:
  std::vector<int64_t> weights_;  // whole numbers without a common divisor: turns in a period
  std::vector<uint16_t> sources_;
  std::vector<uint32_t> ordinals_;  // within the period
};

}  // namespace tptrain::data
