// One next token from the logits of one position, on the host and in double, so that equal logits
// give equal tokens on every rank and device. No model and no communication here.
#pragma once

#include <cstdint>
#include <span>

namespace tptrain::inference {

struct SamplingOptions {
  int64_t max_new_tokens = 200;
  double temperature = 0.0;  // 0: greedy
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;
  uint64_t seed = 0;
  int64_t vocab_limit = 0;  // ids at or above it are never chosen (a model's table may be larger
                            // than its tokenizer's vocabulary); 0: none
};

/// Throws ConfigError with every option that is out of its bounds.
void check_sampling_options(const SamplingOptions& options);

/// The id chosen at `position` (of the whole sequence, from 0). Greedy: the largest logit, of equal
/// ones the lowest id. Else temperature, then top-k, then top-p (the smallest set of most likely
/// ids whose probability reaches top_p), then one uniform number keyed by (seed, position). Throws
/// NumericsError where the logits hold nan or +inf. Source of top-p: Holtzman et al., "The Curious
/// Case of Neural Text Degeneration", ICLR 2020, section 3.1.
int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                     int64_t position);

}  // namespace tptrain::inference
