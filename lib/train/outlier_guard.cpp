#include "train/outlier_guard.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_tree.h"
#include "base/text.h"

namespace tptrain::train {
namespace {

constexpr double kDeviationsOfMad = 1.4826;  // 1 / the upper quartile of the normal distribution
constexpr double kLeastSpread = 0.01;        // of the median

double median_of(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

}  // namespace

double outlier_bound(std::vector<double> values, double threshold) {
  const double median = median_of(values);
  for (double& value : values) value = std::abs(value - median);
  const double spread = kDeviationsOfMad * median_of(std::move(values));
  return median + threshold * std::max(spread, kLeastSpread * std::abs(median));
}

std::vector<OutlierGuard::Seen> OutlierGuard::window_before(int64_t step) const {
  std::vector<Seen> window;
  for (auto seen = seen_.rbegin(); seen != seen_.rend(); ++seen) {
    if (static_cast<int64_t>(window.size()) == config_.window) break;
    if (seen->step <= step - 2) window.push_back(*seen);
  }
  return window;
}

OutlierGuard::Bounds OutlierGuard::bounds_for(int64_t step) const {
  constexpr float kNone = std::numeric_limits<float>::infinity();
  const std::vector<Seen> window = window_before(step);
  if (static_cast<int64_t>(window.size()) < config_.window) return {.loss = kNone, .norm = kNone};
  std::vector<double> losses;
  std::vector<double> norms;
  for (const Seen& seen : window) {
    losses.push_back(seen.loss);
    norms.push_back(seen.norm);
  }
  return {.loss = static_cast<float>(outlier_bound(std::move(losses), config_.threshold)),
          .norm = static_cast<float>(outlier_bound(std::move(norms), config_.threshold))};
}

void OutlierGuard::add(int64_t step, double loss, double norm) {
  if (!is_on()) return;
  seen_.push_back({step, static_cast<float>(loss), static_cast<float>(norm)});
  while (static_cast<int64_t>(seen_.size()) > config_.window + 2) seen_.pop_front();
}

bool OutlierGuard::count_outlier() { return ++outliers_ <= config_.limit; }

void OutlierGuard::rolled_back(int64_t outliers, int64_t passed_over) {
  outliers_ = outliers;
  passed_over_ = passed_over;
}

// The bits of the numbers: they must be the same to the last one after a resume.
std::string OutlierGuard::to_text() const {
  nlohmann::json seen = nlohmann::json::array();
  for (const Seen& one : seen_)
    seen.push_back(
        {one.step, std::bit_cast<uint32_t>(one.loss), std::bit_cast<uint32_t>(one.norm)});
  return nlohmann::json({{"met", outliers_}, {"passed_over", passed_over_}, {"seen", seen}}).dump();
}

void OutlierGuard::restore(const std::string& text, const std::string& checkpoint) {
  seen_.clear();
  outliers_ = passed_over_ = 0;
  if (text.empty()) return;
  try {
    const nlohmann::json json = nlohmann::json::parse(text);
    outliers_ = json.at("met").get<int64_t>();
    passed_over_ = json.at("passed_over").get<int64_t>();
    for (const nlohmann::json& one : json.at("seen"))
      seen_.push_back({one.at(0).get<int64_t>(), std::bit_cast<float>(one.at(1).get<uint32_t>()),
                       std::bit_cast<float>(one.at(2).get<uint32_t>())});
  } catch (const nlohmann::json::exception& error) {
    throw CheckpointError(problem(cat("what it keeps of train.guard cannot be read: ",
                                      readable_json_error(error.what())))
                              .at(checkpoint)
                              .remedy("Resume from another checkpoint."));
  }
}

}  // namespace tptrain::train
