// One token from logits: greedy, the cut-offs, determinism, and that samples follow the
// distribution.
#include "inference/sampling.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "support/catch.h"

namespace tptrain::inference {
namespace {

// Softmax of these: 0.5, 0.25, 0.15, 0.1, out of order.
const std::vector<float> kLogits = {std::log(0.15f), std::log(0.5f), std::log(0.1f),
                                    std::log(0.25f)};
constexpr int kDraws = 20000;

std::map<int32_t, int> counts(const SamplingOptions& options,
                              const std::vector<float>& logits = kLogits) {
  std::map<int32_t, int> result;
  for (int position = 0; position < kDraws; ++position)
    ++result[sample_token(logits, options, position)];
  return result;
}

// Four standard deviations of a binomial count: a right sampler fails it once in 16,000 checks, and
// this seed is fixed.
void check_share(const std::map<int32_t, int>& counts, int32_t id, double probability) {
  INFO("id " << id);
  const auto found = counts.find(id);
  const double share = found == counts.end() ? 0.0 : static_cast<double>(found->second) / kDraws;
  CHECK(std::abs(share - probability) <= 4 * std::sqrt(probability * (1 - probability) / kDraws));
}

std::string refusal(const SamplingOptions& options) {
  try {
    check_sampling_options(options);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no ConfigError";
}

std::string numerics_error(const std::vector<float>& logits, double temperature) {
  try {
    sample_token(logits, {.temperature = temperature}, 7);
  } catch (const NumericsError& error) {
    return error.what();
  }
  return "no NumericsError";
}

TEST_CASE("temperature 0 takes the largest logit, of equal ones the lowest id", "[inference]") {
  CHECK(sample_token(kLogits, {}, 0) == 1);
  CHECK(sample_token(std::vector<float>{-1, 3, 3, 2}, {}, 0) == 1);
  CHECK(sample_token(std::vector<float>{-INFINITY, -1e30f}, {}, 0) == 1);
}

TEST_CASE("samples follow the softmax at temperature 1", "[inference]") {
  const auto seen = counts({.temperature = 1.0, .seed = 11});
  check_share(seen, 0, 0.15);
  check_share(seen, 1, 0.5);
  check_share(seen, 2, 0.1);
  check_share(seen, 3, 0.25);
}

TEST_CASE("a temperature sharpens or flattens the distribution", "[inference]") {
  // At temperature 1/2 the probabilities are squared and normalised: 0.25 / 0.345.
  check_share(counts({.temperature = 0.5, .seed = 12}), 1, 0.25 / 0.345);
  check_share(counts({.temperature = 1e6, .seed = 13}), 2, 0.25);
}

TEST_CASE("top-k keeps the k likeliest", "[inference]") {
  const auto seen = counts({.temperature = 1.0, .top_k = 2, .seed = 14});
  CHECK(seen.size() == 2);
  check_share(seen, 1, 0.5 / 0.75);
  check_share(seen, 3, 0.25 / 0.75);
  CHECK(counts({.temperature = 1.0, .top_k = 1, .seed = 14}).size() == 1);
  CHECK(counts({.temperature = 1.0, .top_k = 100, .seed = 14}).size() == 4);
}

TEST_CASE("of equal logits at the edge of top-k the lower id stays", "[inference]") {
  const auto seen = counts({.temperature = 1.0, .top_k = 2, .seed = 15}, {1, 1, 1, 1});
  CHECK(seen.size() == 2);
  check_share(seen, 0, 0.5);
  check_share(seen, 1, 0.5);
}

TEST_CASE("top-p keeps the smallest set that reaches p", "[inference]") {
  // 0.5 + 0.25 = 0.75 is not enough for 0.8: the third joins.
  const auto seen = counts({.temperature = 1.0, .top_p = 0.8, .seed = 16});
  CHECK(seen.size() == 3);
  check_share(seen, 0, 0.15 / 0.9);
  CHECK(counts({.temperature = 1.0, .top_p = 0.4, .seed = 16}).size() == 1);
  CHECK(counts({.temperature = 1.0, .top_p = 1e-9, .seed = 16}).size() == 1);
  // After top-k: 0.5 of 0.75 is 0.667, so 0.6 leaves one.
  CHECK(counts({.temperature = 1.0, .top_k = 2, .top_p = 0.6, .seed = 16}).size() == 1);
}

TEST_CASE("ids at and beyond vocab_limit are never chosen", "[inference]") {
  const SamplingOptions greedy = {.vocab_limit = 3};
  CHECK(sample_token(std::vector<float>{1, 2, 3, 9, 9}, greedy, 0) == 2);
  const auto seen = counts({.temperature = 1.0, .seed = 17, .vocab_limit = 2});
  CHECK(seen.size() == 2);
  check_share(seen, 1, 0.5 / 0.65);
  CHECK(sample_token(std::vector<float>{1, 2}, {.vocab_limit = 300}, 0) == 1);
}

TEST_CASE("an id of no probability is never drawn", "[inference]") {
  const auto seen = counts({.temperature = 1.0, .seed = 18}, {-INFINITY, 0, -INFINITY, 0});
  CHECK(seen.size() == 2);
  CHECK(seen.count(1) == 1);
  CHECK(seen.count(3) == 1);
}

TEST_CASE("a token is a function of seed and position", "[inference]") {
  const SamplingOptions options = {.temperature = 1.0, .seed = 5};
  int other_seed_differs = 0;
  for (int position = 0; position < 100; ++position) {
    const int32_t id = sample_token(kLogits, options, position);
    CHECK(sample_token(kLogits, options, position) == id);
    other_seed_differs +=
        sample_token(kLogits, {.temperature = 1.0, .seed = 6}, position) != id ? 1 : 0;
  }
  CHECK(other_seed_differs > 20);
}

TEST_CASE("logits that are no numbers are an error that names them", "[inference]") {
  for (const double temperature : {0.0, 1.0}) {
    CHECK(numerics_error({1, NAN, 2}, temperature) ==
          "numerics error: position 7: the logit of id 1 is nan: it must be a finite number.\n"
          "  The model's parameters have diverged: take an earlier checkpoint.");
    CHECK(numerics_error({INFINITY, 2}, temperature).find("the logit of id 0 is inf") !=
          std::string::npos);
    CHECK(numerics_error({-INFINITY, -INFINITY}, temperature)
              .find("none of the 2 logits is a finite number") != std::string::npos);
  }
}

TEST_CASE("options out of their bounds are refused, all at once", "[inference]") {
  CHECK(refusal({.max_new_tokens = 0, .temperature = -1, .top_k = -2, .top_p = 0}) ==
        "config error: max_new_tokens is 0: it must be at least 1.\n"
        "config error: temperature is -1: it must be 0 (the most likely token) or a positive "
        "number.\n"
        "config error: top_k is -2: it must be 0 (all tokens) or more.\n"
        "config error: top_p is 0: it must be above 0 and at most 1 (all tokens).");
  CHECK(refusal({.temperature = NAN}).find("temperature is nan") != std::string::npos);
  CHECK(refusal({.temperature = 1, .top_p = NAN}).find("top_p is nan") != std::string::npos);
  CHECK(refusal({.top_k = 5}) ==
        "config error: top_k or top_p is given with temperature 0: it must come with a "
        "temperature, as temperature 0 "
        "always takes the most likely token.\n"
        "  Set a temperature, for example 0.8, or leave top_k and top_p out.");
  CHECK(refusal({}) == "no ConfigError");
}

}  // namespace
}  // namespace tptrain::inference
