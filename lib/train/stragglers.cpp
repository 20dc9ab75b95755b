#include "train/stragglers.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::train {
namespace {

// Below this a phase is too short to hold anybody up, and too noisy to be judged.
constexpr double kLeastMs = 1;

struct Phase {
  const char* name;
  std::vector<double> ms;  // a step, of each rank
};

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::vector<double> ms_of(const std::vector<RankPace>& of_ranks, double RankPace::*seconds) {
  std::vector<double> ms;
  for (const RankPace& pace : of_ranks)
    ms.push_back(1000 * pace.*seconds / static_cast<double>(std::max<int64_t>(1, pace.steps)));
  return ms;
}

bool any_above(const std::vector<double>& values, double bound) {
  return std::any_of(values.begin(), values.end(), [&](double value) { return value > bound; });
}

}  // namespace

std::string to_wire(const RankPace& pace) {
  return {reinterpret_cast<const char*>(&pace), sizeof pace};
}

RankPace pace_from_wire(const std::string& text) {
  RankPace pace;
  if (text.size() != sizeof pace) throw InternalError(problem("a rank's pace of another size"));
  std::memcpy(&pace, text.data(), sizeof pace);
  return pace;
}

PaceReport pace_report(const std::vector<RankPace>& of_ranks,
                       const std::vector<std::string>& places) {
  std::vector<RankPace> probed = of_ranks;
  for (RankPace& pace : probed) pace.steps = 1;
  const std::vector<Phase> phases = {
      {"data", ms_of(of_ranks, &RankPace::data_s)},
      {"own work", ms_of(of_ranks, &RankPace::compute_s)},
      {"a thousand products of a fixed size", ms_of(probed, &RankPace::probe_s)}};
  PaceReport report;
  std::vector<std::string> texts;
  for (const Phase& phase : phases) {
    const auto slowest = std::max_element(phase.ms.begin(), phase.ms.end());
    if (*slowest == 0) continue;  // not measured here
    const double median = median_of(phase.ms);
    const auto rank = static_cast<size_t>(slowest - phase.ms.begin());
    texts.push_back(cat(phase.name, " ", fixed(median, 2), " ms, slowest ", fixed(*slowest, 2),
                        " on rank ", rank));
    for (size_t r = 0; r < phase.ms.size(); ++r) {
      if (phase.ms[r] <= kTooSlow * median || phase.ms[r] < kLeastMs) continue;
      report.warnings.push_back(cat(places[r], " holds the others up: ", phase.name, " takes ",
                                    fixed(phase.ms[r], 2), " ms there, the median rank ",
                                    fixed(median, 2), " ms (", fixed(phase.ms[r] / median, 2),
                                    " x)"));
    }
  }
  const std::vector<double> waiting = ms_of(of_ranks, &RankPace::waiting_s);
  if (any_above(waiting, 0)) {
    const auto [least, most] = std::minmax_element(waiting.begin(), waiting.end());
    texts.push_back(cat("waiting for others ", fixed(*least, 2), " to ", fixed(*most, 2), " ms"));
  }
  report.line =
      cat("pace of the last ", of_ranks[0].steps, " steps, median rank: ", join(texts, "; "));
  return report;
}

}  // namespace tptrain::train
