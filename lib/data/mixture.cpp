#include "data/mixture.h"

#include <cmath>
#include <numeric>
#include <optional>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::data {

namespace {

/// Weights as a run file writes them have few decimal places.
constexpr int kMostPlaces = 9;

bool is_whole(double value) {
  return std::abs(value - std::nearbyint(value)) <= 1e-12 * std::abs(value);
}

/// Whole numbers in the same proportions, without a common divisor; none where there are no small
/// enough ones.
std::optional<std::vector<int64_t>> whole_numbers(std::span<const double> weights) {
  double scale = 1;
  for (int places = 0; places <= kMostPlaces; ++places, scale *= 10) {
    std::vector<int64_t> whole;
    int64_t divisor = 0;
    for (const double weight : weights) {
      const double scaled = weight * scale;
      if (!is_whole(scaled) || scaled < 1 || scaled > 1e15) break;
      whole.push_back(std::llround(scaled));
      divisor = std::gcd(divisor, whole.back());
    }
    if (whole.size() != weights.size()) continue;
    int64_t sum = 0;
    for (int64_t& number : whole) sum += number /= divisor;
    if (sum > MixtureSchedule::kMostInPeriod) return std::nullopt;
    return whole;
  }
  return std::nullopt;
}

ConfigError not_whole(std::span<const double> weights) {
  return ConfigError(problem(cat("the weights ", join(weights),
                                 " are no multiples of a common part of at least 1/",
                                 with_thousands(MixtureSchedule::kMostInPeriod), " of their sum"))
                         .at("data.train")
                         .must("be, so that every source gets exactly its part")
                         .remedy("Round them to fewer digits: 0.7 and 0.3, or 7 and 3."));
}

}  // namespace

// Source: Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980: among the
// sources that are far enough behind their part, the one whose deadline is next. No source is then
// ever 1 - 1 / (2k - 2) off its part, the best bound there is for k sources. All in whole numbers:
// a part of 1 is `sum`, and everything is multiplied by 2k - 2.
MixtureSchedule::MixtureSchedule(std::span<const double> weights) {
  const std::optional<std::vector<int64_t>> whole = whole_numbers(weights);
  if (!whole) throw not_whole(weights);
  weights_ = *whole;
  if (weights_.size() > 10'000) {
    throw InternalError(problem(cat("a mixture of ", weights_.size(), " sources")));
  }
  const int64_t sum = std::accumulate(weights_.begin(), weights_.end(), int64_t{0});
  const int64_t factor = 2 * static_cast<int64_t>(weights_.size()) - 2;
  std::vector<int64_t> given(weights_.size());
  sources_.reserve(static_cast<size_t>(sum));
  ordinals_.reserve(static_cast<size_t>(sum));
  for (int64_t turn = 1; turn <= sum; ++turn) {
    size_t best = weights_.size();
    int64_t best_slack = 0;
    for (size_t i = 0; i < weights_.size(); ++i) {
      const int64_t behind = (weights_[i] * turn - sum * given[i]) * factor;
      if (behind < sum && factor > 0) continue;
      const int64_t slack = sum * (factor - 1) - behind;
      // slack / weight, compared without a division; sums of at most kMostInPeriod do not overflow.
      if (best == weights_.size() || slack * weights_[best] < best_slack * weights_[i]) {
        best = i;
        best_slack = slack;
      }
    }
    if (best == weights_.size())
      throw InternalError(problem("no source of a mixture has its turn"));
    sources_.push_back(static_cast<uint16_t>(best));
    ordinals_.push_back(static_cast<uint32_t>(given[best]++));
  }
}

MixtureSchedule::Turn MixtureSchedule::operator()(int64_t index) const {
  const auto at = static_cast<size_t>(index % period());
  const auto source = static_cast<int32_t>(sources_[at]);
  return {.source = source,
          .ordinal = index / period() * weights_[static_cast<size_t>(source)] + ordinals_[at]};
}

std::vector<int64_t> MixtureSchedule::counts(int64_t turns) const {
  std::vector<int64_t> counts;
  for (const int64_t weight : weights_) counts.push_back(turns / period() * weight);
  // Each source's last turn before the end says how many it has had; it is never far.
  size_t open = counts.size();
  std::vector<bool> known(counts.size());
  for (int64_t at = turns % period() - 1; at >= 0 && open > 0; --at) {
    const uint16_t source = sources_[static_cast<size_t>(at)];
    if (known[source]) continue;
    known[source] = true;
    --open;
    counts[source] += ordinals_[static_cast<size_t>(at)] + 1;
  }
  return counts;
}

}  // namespace tptrain::data
