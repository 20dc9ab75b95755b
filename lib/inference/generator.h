// Text generation with a KV cache and evaluation on text, on any tp.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "comm/communicator.h"
#include "model/decoder.h"

namespace tptrain::inference {

struct SamplingOptions {
  int64_t max_new_tokens = 200;
  double temperature = 0.0;  // 0: greedy
  int64_t top_k = 0;         // 0: all
  double top_p = 1.0;
  uint64_t seed = 0;
};

/// Continues `prompt` (not empty) until end_of_text or max_new_tokens; calls `emit` with each new id (not end_of_text) as it comes. Every tp rank
/// gets the same ids: logits are gathered bitwise equal and sampling is Philox keyed by (seed, position). Collective over tp.
std::vector<int32_t> generate(model::Decoder& decoder, const std::vector<int32_t>& prompt, int32_t end_of_text, const SamplingOptions& options,
                              at::Device device, const std::function<void(int32_t)>& emit);

}  // namespace tptrain::inference
