// Several sources: which sequence comes when, that a mixture keeps to its weights at every moment,
// and that no interruption and no layout repeats or skips one.
#include "data/mixture.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "base/error.h"
#include "base/files.h"
#include "data/batch_sampler.h"
#include "formats/token_file.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::data {
namespace {

using testing::has;
using testing::message_of;
using testing::TempDir;

/// Token i is first + i: a sequence tells which source and window it is.
SourceTokens source(const TempDir& dir, const std::string& name, int64_t first, int64_t sequences,
                    int64_t seq_length, std::optional<double> weight = {}, int64_t repeat = 1) {
  SourceTokens made{.tokens = {.path = dir / name,
                               .identity = sha256_hex(name),
                               .tokens = sequences * seq_length + 1,
                               .documents = 1,
                               .split = "train",
                               .rebuilt_because = ""},
                    .name = name,
                    .weight = weight,
                    .repeat = repeat};
  formats::TokenFileWriter writer(made.tokens.path, 1'000'000, made.tokens.identity);
  std::vector<int32_t> tokens(static_cast<size_t>(made.tokens.tokens));
  std::iota(tokens.begin(), tokens.end(), static_cast<int32_t>(first));
  writer.append(tokens);
  writer.end_document();
  writer.commit();
  return made;
}

/// The first token of each sequence of a step, in the order of the global batch.
std::vector<int64_t> step_of(const BatchSampler& sampler, int64_t step) {
  const BatchShape& shape = sampler.shape();
  std::vector<int64_t> firsts;
  for (int64_t micro = 0; micro < shape.accumulation; ++micro) {
    for (int rank = 0; rank < shape.dp_size; ++rank) {
      const HostBatch batch = sampler.micro_batch(step, rank, micro);
      for (int64_t row = 0; row < batch.batch; ++row)
        firsts.push_back(batch.ids[static_cast<size_t>(row * shape.seq_length)]);
    }
  }
  return firsts;
}

TEST_CASE("after every number of turns each source has had its part to within one") {
  std::mt19937_64 random(20260601);
  const auto integer = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<double> weights(static_cast<size_t>(integer(1, 9)));
    for (double& weight : weights)
      weight = round % 2 == 0 ? static_cast<double>(integer(1, 20))
                              : static_cast<double>(integer(1, 999)) / 1000;
    if (round % 5 == 0) weights.front() = 900;  // one that nearly fills it
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    const MixtureSchedule schedule(weights);
    std::vector<int64_t> given(weights.size());
    const int64_t turns = std::min<int64_t>(2 * schedule.period() + 3, 3000);
    bool in_order = true;
    double most_off = 0;
    for (int64_t turn = 0; turn < turns; ++turn) {
      const MixtureSchedule::Turn at = schedule(turn);
      in_order = in_order && at.ordinal == given[static_cast<size_t>(at.source)]++;
      for (size_t i = 0; i < weights.size(); ++i) {
        const double part = static_cast<double>(turn + 1) * weights[i] / sum;
        most_off = std::max(most_off, std::abs(static_cast<double>(given[i]) - part));
      }
    }
    INFO("round " << round);
    CHECK(in_order);
    CHECK(most_off < 1);
    CHECK(schedule.counts(turns) == given);
  }
}

TEST_CASE("the schedule far out is where it was, and a source of no small part is refused") {
  const std::vector<double> weights = {0.7, 0.2, 0.1};
  const MixtureSchedule schedule(weights);
  CHECK(schedule.period() == 10);
  const int64_t far = 10 * 123'456'789'012;
  CHECK(schedule.counts(far) ==
        std::vector<int64_t>{7 * 123'456'789'012, 2 * 123'456'789'012, 123'456'789'012});
  CHECK(schedule(far).source == schedule(0).source);
  CHECK(schedule(far).ordinal - schedule(0).ordinal ==
        schedule.counts(far)[static_cast<size_t>(schedule(0).source)]);
  CHECK(MixtureSchedule(std::vector<double>{250, 750}).period() == 4);
  CHECK(MixtureSchedule(std::vector<double>{5}).period() == 1);
  const std::vector<double> odd = {123456789, 987654321};
  const std::string message = message_of<ConfigError>([&] { MixtureSchedule{odd}; });
  CHECK(has(message, "data.train: the weights "));
  CHECK(has(message, "Round them to fewer digits"));
  const std::vector<double> third = {1.0 / 3, 2.0 / 3};
  CHECK(has(message_of<ConfigError>([&] { MixtureSchedule{third}; }), "no multiples of a common"));
}

TEST_CASE("one source is what it always was, named and weighted or not") {
  const TempDir dir;
  const SourceTokens plain = source(dir, "a", 0, 23, 4);
  const BatchShape shape = {.seq_length = 4, .micro_batch_size = 3};
  const BatchSampler before(plain.tokens, shape, {.seed = 7});
  SourceTokens weighted = plain;
  weighted.name = "x";
  weighted.weight = 3;
  const BatchSampler now({weighted}, shape, {.seed = 7});
  for (int64_t step = 0; step < 20; ++step) CHECK(step_of(now, step) == step_of(before, step));
  CHECK(identity_of({weighted}) == plain.tokens.identity);
  CHECK(now.windows() == 23);
  // The order that runs have been resumed with: checkpoints hold a position in it.
  CHECK(step_of(before, 0) == std::vector<int64_t>{44, 72, 4});
  CHECK(step_of(before, 8) == std::vector<int64_t>{76, 80, 24});  // the second epoch's
}

TEST_CASE("sources of one size are shuffled each in an order of its own") {
  const TempDir dir;
  const std::vector<SourceTokens> sources = {source(dir, "a", 0, 32, 1, 1.0),
                                             source(dir, "b", 1000, 32, 1, 1.0)};
  const BatchSampler sampler(sources, {.seq_length = 1, .micro_batch_size = 64}, {.seed = 1});
  std::vector<int64_t> of_a, of_b;
  for (const int64_t token : step_of(sampler, 0))
    (token < 1000 ? of_a : of_b).push_back(token % 1000);
  REQUIRE(of_a.size() == 32);
  REQUIRE(of_b.size() == 32);
  CHECK(of_a != of_b);
}

TEST_CASE("without weights an epoch is every source as often as it is repeated") {
  const TempDir dir;
  const std::vector<SourceTokens> sources = {source(dir, "a", 0, 5, 2),
                                             source(dir, "b", 1000, 3, 2, {}, 4)};
  const BatchShape shape = {.seq_length = 2, .micro_batch_size = 1};
  for (const bool shuffle : {false, true}) {
    const BatchSampler sampler(sources, shape, {.seed = 1, .shuffle = shuffle});
    CHECK(sampler.windows() == 17);
    CHECK(sampler.progress(100).empty());
    for (int64_t epoch = 0; epoch < 2; ++epoch) {
      std::map<int64_t, int> seen;
      for (int64_t step = 0; step < 17; ++step) ++seen[step_of(sampler, epoch * 17 + step)[0]];
      CHECK(seen == std::map<int64_t, int>{
                        {0, 1}, {2, 1}, {4, 1}, {6, 1}, {8, 1}, {1000, 4}, {1002, 4}, {1004, 4}});
    }
  }
  const BatchSampler in_order(sources, shape, {.shuffle = false});
  CHECK(step_of(in_order, 4)[0] == 8);
  CHECK(step_of(in_order, 5)[0] == 1000);
  CHECK(step_of(in_order, 8)[0] == 1000);
}

TEST_CASE("1,000 schedules of interruption and layout over a mixture repeat and skip nothing") {
  const TempDir dir;
  constexpr int64_t kGlobalBatch = 12;
  const std::vector<SourceTokens> sources = {source(dir, "a", 0, 40, 2, 0.5),
                                             source(dir, "b", 1000, 7, 2, 0.3),
                                             source(dir, "c", 2000, 13, 2, 0.2)};
  const SamplerOptions options = {.seed = 5};
  std::vector<BatchSampler> layouts;
  for (const int dp_size : {1, 2, 3, 4, 6, 12}) {
    for (const int64_t micro : {1, 2, 3}) {
      if (kGlobalBatch % (dp_size * micro) != 0) continue;
      layouts.emplace_back(sources,
                           BatchShape{.seq_length = 2,
                                      .micro_batch_size = micro,
                                      .accumulation = kGlobalBatch / (dp_size * micro),
                                      .dp_size = dp_size},
                           options);
    }
  }
  // Uninterrupted, on one rank.
  constexpr int64_t kSteps = 30;
  std::vector<std::vector<int64_t>> expected;
  for (int64_t step = 0; step < kSteps; ++step) expected.push_back(step_of(layouts.front(), step));

  std::mt19937_64 random(20260602);
  int wrong = 0;
  for (int schedule = 0; schedule < 1000; ++schedule) {
    int64_t step = 0;
    while (step < kSteps) {  // each start goes on from the last save, which may lie steps back
      const BatchSampler& layout = layouts[random() % layouts.size()];
      const int64_t until =
          std::min<int64_t>(kSteps, step + 1 + static_cast<int64_t>(random() % 9));
      for (; step < until; ++step)
        if (step_of(layout, step) != expected[static_cast<size_t>(step)]) ++wrong;
      if (step < kSteps && random() % 3 == 0) step -= static_cast<int64_t>(random() % 2);
    }
  }
  CHECK(wrong == 0);

  // Within each source nothing comes again before all of it has come.
  std::map<int64_t, std::vector<int64_t>> of_source;
  for (const auto& batch : expected)
    for (const int64_t first : batch) of_source[first / 1000].push_back(first);
  const std::vector<int64_t> sizes = {40, 7, 13};
  for (const auto& [number, firsts] : of_source) {
    const auto size = static_cast<size_t>(sizes[static_cast<size_t>(number)]);
    for (size_t begin = 0; begin + size <= firsts.size(); begin += size) {
      std::vector<int64_t> epoch(firsts.begin() + static_cast<std::ptrdiff_t>(begin),
                                 firsts.begin() + static_cast<std::ptrdiff_t>(begin + size));
      std::sort(epoch.begin(), epoch.end());
      CHECK(std::adjacent_find(epoch.begin(), epoch.end()) == epoch.end());
    }
  }
  const auto progress = layouts.front().progress(kSteps * kGlobalBatch);
  REQUIRE(progress.size() == 3);
  CHECK(progress[1].name == "b");
  CHECK(progress[1].sequences == static_cast<int64_t>(of_source[1].size()));
  CHECK(progress[1].epoch == Approx(static_cast<double>(of_source[1].size()) / 7));
}

TEST_CASE("what decides the order is in the identity, and an empty source is named") {
  const TempDir dir;
  const SourceTokens a = source(dir, "a", 0, 5, 2, 1.0);
  const SourceTokens b = source(dir, "b", 1000, 5, 2, 1.0);
  SourceTokens heavier = b;
  heavier.weight = 2;
  SourceTokens repeated = a;
  repeated.repeat = 2;
  CHECK(identity_of({a, b}) != identity_of({b, a}));
  CHECK(identity_of({a, b}) != identity_of({a, heavier}));
  CHECK(identity_of({repeated}) != identity_of({a}));
  SourceTokens renamed = b;
  renamed.name = "other";
  CHECK(identity_of({a, b}) == identity_of({a, renamed}));
  CHECK(has(message_of<DataError>([&] {
              BatchSampler({a, source(dir, "tiny", 0, 0, 2, 1.0)},
                           {.seq_length = 2, .micro_batch_size = 1}, {});
            }),
            "data.train: the source tiny has 1 tokens, not enough for one sequence"));
}

}  // namespace
}  // namespace tptrain::data
