// The product of everything a user may choose without changing the training, and a pairwise sample
// of it: every pair of values of two settings occurs in at least one case.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/device_mesh.h"
#include "support/training.h"

namespace tptrain::testing {

struct ParityCase {
  comm::MeshShape shape = {};
  int zero_stage = 0;
  bool per_micro_batch = false;
  bool sequence_parallel = false;
  model::Recompute recompute = model::Recompute::none;
  int64_t accumulation = 1;
  int64_t model = 0;  // of parity_models()

  const model::DecoderConfig& config() const;
  TrainingOptions options() const;
  std::string text() const;  // "tp 2 dp 2 ZeRO 3, per micro-batch, sequence parallel, ..."
  /// Cases of equal key must be bitwise equal: the stages at one cadence, and recompute.
  std::string bitwise_key() const;
};

/// odd_llama and odd_qwen2 of training.h, and with sizes like theirs:
model::DecoderConfig odd_gpt2();   // LayerNorm, learned positions, GELU, biases; tied; 5 heads
model::DecoderConfig odd_qwen3();  // norms of q and k; untied; 6 heads, 2 kv heads, scaled rotary
/// The four of them.
const std::vector<model::DecoderConfig>& parity_models();
model::DecoderConfig even_llama();  // sizes that FP8 takes on up to 4 tp ranks

/// Of so many ranks: tp and dp up to 4.
std::vector<comm::MeshShape> layouts_of(int world_size);

/// All of `world_size` ranks.
std::vector<ParityCase> all_parity_cases(int world_size);

/// Of `cases` in an order that `seed` shuffles, again and again the one that shows most pairs not
/// shown yet.
std::vector<ParityCase> pairwise_sample(std::vector<ParityCase> cases, uint64_t seed);

}  // namespace tptrain::testing
