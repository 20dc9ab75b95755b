#include "inference/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "random/philox.h"

namespace tptrain::inference {

namespace {

// -inf is a legal logit (an id that is ruled out); nan and +inf leave nothing to compare.
void require_comparable(std::span<const float> logits, int64_t position) {
  bool any_finite = false;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (std::isnan(logits[id]) || logits[id] == INFINITY) {
      throw NumericsError(
          problem(cat("the logit of id ", id, " is ", logits[id]))
              .at(cat("position ", position))
              .must("be a finite number")
              .remedy("The model's parameters have diverged: take an earlier checkpoint."));
    }
    any_finite = any_finite || std::isfinite(logits[id]);
  }
  if (!any_finite) {
    throw NumericsError(
        problem(cat("none of the ", logits.size(), " logits is a finite number"))
            .at(cat("position ", position))
            .remedy("The model's parameters have diverged: take an earlier checkpoint."));
  }
}

}  // namespace

void check_sampling_options(const SamplingOptions& options) {
  std::vector<Problem> problems;
  if (options.max_new_tokens < 1) {
    problems.push_back(
        problem(cat("max_new_tokens is ", options.max_new_tokens)).must("be at least 1"));
  }
  if (!std::isfinite(options.temperature) || options.temperature < 0) {
    problems.push_back(problem(cat("temperature is ", options.temperature))
                           .must("be 0 (the most likely token) or a positive number"));
  }
  if (options.top_k < 0) {
    problems.push_back(problem(cat("top_k is ", options.top_k)).must("be 0 (all tokens) or more"));
  }
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    problems.push_back(
        problem(cat("top_p is ", options.top_p)).must("be above 0 and at most 1 (all tokens)"));
  }
  if (options.temperature == 0 && (options.top_k > 0 || options.top_p < 1)) {
    problems.push_back(
        problem("top_k or top_p is given with temperature 0")
            .must("come with a temperature, as temperature 0 always takes the most likely token")
            .remedy("Set a temperature, for example 0.8, or leave top_k and top_p out."));
  }
  if (!problems.empty()) throw ConfigError(problems);
}

int32_t sample_token(std::span<const float> all_logits, const SamplingOptions& options,
                     int64_t position) {
  const auto limit = static_cast<size_t>(std::max<int64_t>(0, options.vocab_limit));
  const std::span<const float> logits =
      limit > 0 && limit < all_logits.size() ? all_logits.first(limit) : all_logits;
  require_comparable(logits, position);
  if (options.temperature == 0) {
    // max_element returns the first of equal ones.
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }

  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b]
                                  : a < b;  // a total order: the same on every rank
  };
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < ids.size()) {
    std::nth_element(ids.begin(), ids.begin() + options.top_k, ids.end(), likelier);
    ids.resize(static_cast<size_t>(options.top_k));
  }
  std::sort(ids.begin(), ids.end(), likelier);

  const double largest = logits[ids[0]];
  std::vector<double> weights(ids.size());
  double total = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    weights[i] = std::exp((logits[ids[i]] - largest) / options.temperature);
    total += weights[i];
  }
  size_t kept = ids.size();
  double kept_total = total;
  if (options.top_p < 1) {
    kept = 0;
    kept_total = 0;
    while (kept < ids.size() && kept_total < options.top_p * total) kept_total += weights[kept++];
  }

  const auto key = random::philox_key(options.seed, "sampling");
  double rest = random::philox_uniform(key, static_cast<uint64_t>(position)) * kept_total;
  size_t chosen = 0;  // where rounding leaves a remainder of about 1e-16 of the whole: the last
                      // that has any weight
  for (size_t i = 0; i < kept && rest >= 0; ++i) {
    if (weights[i] == 0) continue;
    chosen = i;
    rest -= weights[i];
  }
  return ids[chosen];
}

}  // namespace tptrain::inference
