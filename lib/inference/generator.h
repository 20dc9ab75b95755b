// Text generation with a KV cache, on any tp: prompt ids in, continuation ids out, one by one. What
// one token is chosen by is in sampling.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "inference/sampling.h"
#include "model/decoder.h"

namespace tptrain::inference {

/// Throws ConfigError where the prompt is empty or holds an id that the model's vocabulary lacks.
void check_prompt(const std::vector<int32_t>& prompt, int64_t vocab_size);

/// Continues `prompt` until one of `stop_ids` or max_new_tokens; calls `emit` with each new id (not
/// the one it stops at) as it comes and returns them all. Every tp rank gets the same ids: logits
/// are gathered bitwise equal and sampling is Philox keyed by (seed, position). A prompt longer
/// than the training sequences is allowed. Throws ConfigError as check_prompt and
/// check_sampling_options do. Collective over tp.
std::vector<int32_t> generate(model::Decoder& decoder, const std::vector<int32_t>& prompt,
                              std::span<const int32_t> stop_ids, const SamplingOptions& options,
                              at::Device device, const std::function<void(int32_t)>& emit);

}  // namespace tptrain::inference
