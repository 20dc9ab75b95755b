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
  bool tied = false;

  model::DecoderConfig config() const { return tied ? odd_qwen2() : odd_llama(); }
  TrainingOptions options() const;
  std::string text() const;  // "tp 2 dp 2 ZeRO 3, per micro-batch, sequence parallel, ..."
  /// Cases of equal key must be bitwise equal: the stages at one cadence, and recompute.
  std::string bitwise_key() const;
};

/// All of `world_size` ranks.
std::vector<ParityCase> all_parity_cases(int world_size);

/// In an order that `seed` shuffles, those of `cases` that are the first to show some pair.
std::vector<ParityCase> pairwise_sample(std::vector<ParityCase> cases, uint64_t seed);

}  // namespace tptrain::testing
