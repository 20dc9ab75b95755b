#include "support/parity_cases.h"

#include <array>
#include <set>
#include <utility>

#include "base/text.h"
#include "random/philox.h"

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
      c.accumulation,  c.model};
}

}  // namespace

model::DecoderConfig odd_gpt2() {
  model::DecoderConfig config = odd_llama();
  config.model_type = "gpt2";
  config.norm = model::Norm::layer;
  config.feed_forward = model::FeedForward::gelu;
  config.positions = model::Positions::learned;
  config.max_position_embeddings = kSequenceLength + 1;
  config.num_attention_heads = 5;
  config.num_key_value_heads = 5;
  config.head_dim = 8;
  config.norm_eps = 1e-5;
  config.mlp_bias = true;
  config.tie_word_embeddings = true;
  return config;
}

model::DecoderConfig odd_qwen3() {
  model::DecoderConfig config = odd_llama();
  config.model_type = "qwen3";
  config.num_attention_heads = 6;
  config.num_key_value_heads = 2;
  config.head_dim = 12;
  config.qkv_bias = false;
  config.o_bias = false;
  config.qk_norm = true;
  config.rope_scaling = {.kind = model::RotaryScaling::Kind::llama3,
                         .factor = 4.0,
                         .low_freq_factor = 0.1,
                         .high_freq_factor = 1.0,
                         .original_max_position_embeddings = 16};
  return config;
}

const std::vector<model::DecoderConfig>& parity_models() {
  static const std::vector<model::DecoderConfig> models = {odd_llama(), odd_qwen2(), odd_gpt2(),
                                                           odd_qwen3()};
  return models;
}

model::DecoderConfig even_llama() {
  model::DecoderConfig config = odd_llama();
  config.hidden_size = 64;
  config.intermediate_size = 192;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 16;
  return config;
}

const model::DecoderConfig& ParityCase::config() const {
  return parity_models().at(static_cast<size_t>(model));
}

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
             ", accumulation ", accumulation, ", ", config().model_type);
}

std::string ParityCase::bitwise_key() const {
  return cat(shape.tp_size, "/", shape.dp_size, "/", per_micro_batch, "/", sequence_parallel, "/",
             accumulation, "/", model);
}

std::vector<comm::MeshShape> layouts_of(int world_size) {
  std::vector<comm::MeshShape> layouts;
  for (int tp = 1; tp <= std::min(world_size, 4); tp *= 2) {
    if (world_size % tp == 0 && world_size / tp <= 4)
      layouts.push_back({.dp_size = world_size / tp, .tp_size = tp});
  }
  return layouts;
}

std::vector<ParityCase> all_parity_cases(int world_size) {
  std::vector<ParityCase> cases;
  for (const comm::MeshShape shape : layouts_of(world_size)) {
    for (const int zero_stage : {0, 1, 2, 3}) {
      for (const bool per_micro_batch : {false, true}) {
        if (zero_stage >= 2 && !per_micro_batch) continue;  // they know no other cadence
        for (const bool sequence_parallel : {false, true}) {
          if (sequence_parallel && shape.tp_size == 1) continue;
          for (const model::Recompute recompute :
               {model::Recompute::none, model::Recompute::selective, model::Recompute::full}) {
            for (const int64_t accumulation : {1, 3}) {
              for (const int64_t model : {0, 1, 2, 3}) {
                cases.push_back({.shape = shape,
                                 .zero_stage = zero_stage,
                                 .per_micro_batch = per_micro_batch,
                                 .sequence_parallel = sequence_parallel,
                                 .recompute = recompute,
                                 .accumulation = accumulation,
                                 .model = model});
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
  const auto key = random::philox_key(seed, "pairwise sample");
  for (size_t i = cases.size(); i > 1; --i)
    std::swap(cases[i - 1], cases[random::philox_below(key, i, i)]);
  using Pair = std::array<int64_t, 4>;
  std::set<Pair> seen;
  const auto new_pairs = [&](const ParityCase& one) {
    const auto settings = settings_of(one);
    std::vector<Pair> pairs;
    for (size_t a = 0; a < settings.size(); ++a) {
      for (size_t b = a + 1; b < settings.size(); ++b) {
        const Pair pair = {int64_t(a), settings[a], int64_t(b), settings[b]};
        if (!seen.contains(pair)) pairs.push_back(pair);
      }
    }
    return pairs;
  };
  std::vector<ParityCase> sample;
  while (true) {
    const ParityCase* best = nullptr;
    std::vector<Pair> best_pairs;
    for (const ParityCase& candidate : cases) {
      std::vector<Pair> pairs = new_pairs(candidate);
      if (pairs.size() <= best_pairs.size()) continue;
      best = &candidate;
      best_pairs = std::move(pairs);
    }
    if (best == nullptr) return sample;
    sample.push_back(*best);
    seen.insert(best_pairs.begin(), best_pairs.end());
  }
}

}  // namespace tptrain::testing
