#include "support/parity_cases.h"

#include <array>
#include <set>
#include <utility>

#include "base/text.h"
#include "sharding/philox.h"

namespace tptrain::testing {
namespace {

const char* name_of(model::Recompute recompute) {
  switch (recompute) {
    case model::Recompute::none:
      return "none";
    case model::Recompute::selective:
      return "selective";
    case model::Recompute::full:
      return "full";
  }
  return "?";
}

// The settings of a case as numbers, one a setting.
std::array<int64_t, 7> settings_of(const ParityCase& c) {
  return {
      c.shape.tp_size, c.zero_stage, c.per_micro_batch, c.sequence_parallel, int64_t(c.recompute),
      c.accumulation,  c.tied};
}

}  // namespace

TrainingOptions ParityCase::options() const {
  using tensor_parallel::SequenceParallel;
  return {.accumulation = accumulation,
          .zero_stage = zero_stage,
          .reduce_per_micro_batch = per_micro_batch,
          .model = {
              .sequence_parallel = sequence_parallel ? SequenceParallel::on : SequenceParallel::off,
              .recompute = recompute}};
}

std::string ParityCase::text() const {
  return cat("tp ", shape.tp_size, " dp ", shape.dp_size, " ZeRO ", zero_stage,
             per_micro_batch ? ", reduced per micro-batch" : ", reduced per step",
             sequence_parallel ? ", sequence parallel" : "", ", recompute ", name_of(recompute),
             ", accumulation ", accumulation, tied ? ", tied" : ", untied");
}

std::string ParityCase::bitwise_key() const {
  return cat(shape.tp_size, "/", shape.dp_size, "/", per_micro_batch, "/", sequence_parallel, "/",
             accumulation, "/", tied);
}

std::vector<ParityCase> all_parity_cases(int world_size) {
  std::vector<ParityCase> cases;
  for (int tp = 1; tp <= std::min(world_size, 4); tp *= 2) {
    if (world_size % tp != 0 || world_size / tp > 4) continue;
    for (const int zero_stage : {0, 1, 2, 3}) {
      for (const bool per_micro_batch : {false, true}) {
        if (zero_stage >= 2 && !per_micro_batch) continue;  // they know no other cadence
        for (const bool sequence_parallel : {false, true}) {
          if (sequence_parallel && tp == 1) continue;
          for (const model::Recompute recompute :
               {model::Recompute::none, model::Recompute::selective, model::Recompute::full}) {
            for (const int64_t accumulation : {1, 3}) {
              for (const bool tied : {false, true}) {
                cases.push_back({.shape = {.dp_size = world_size / tp, .tp_size = tp},
                                 .zero_stage = zero_stage,
                                 .per_micro_batch = per_micro_batch,
                                 .sequence_parallel = sequence_parallel,
                                 .recompute = recompute,
                                 .accumulation = accumulation,
                                 .tied = tied});
              }
            }
          }
        }
      }
    }
  }
  return cases;
}

std::vector<ParityCase> pairwise_sample(std::vector<ParityCase> cases, uint64_t seed) {
  const auto key = sharding::philox_key(seed, "pairwise sample");
  for (size_t i = cases.size(); i > 1; --i)
    std::swap(cases[i - 1], cases[sharding::philox_below(key, i, i)]);
  std::set<std::array<int64_t, 4>> seen;
  std::vector<ParityCase> sample;
  for (const ParityCase& candidate : cases) {
    const auto settings = settings_of(candidate);
    bool shows_new = false;
    for (size_t a = 0; a < settings.size(); ++a) {
      for (size_t b = a + 1; b < settings.size(); ++b) {
        shows_new |= seen.insert({int64_t(a), settings[a], int64_t(b), settings[b]}).second;
      }
    }
    if (shows_new) sample.push_back(candidate);
  }
  return sample;
}

}  // namespace tptrain::testing
