#include "inference/generator.h"

#include <ATen/Context.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <span>

#include "base/error.h"
#include "base/text.h"
#include "model/kv_cache.h"

namespace tptrain::inference {

namespace {

/// [S, 1] int64 on `device`: the decoder is sequence-first.
at::Tensor ids_tensor(std::span<const int32_t> ids, at::Device device) {
  const std::vector<int64_t> wide(ids.begin(), ids.end());
  return at::tensor(wide, at::kLong).view({-1, 1}).to(device);
}

}  // namespace

void check_prompt(const std::vector<int32_t>& prompt, int64_t vocab_size) {
  if (prompt.empty()) {
    throw ConfigError(problem("the prompt is empty")
                          .must("hold at least one token, as the model continues text")
                          .remedy("Give some text to continue."));
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] >= 0 && prompt[i] < vocab_size) continue;
    throw ConfigError(problem(cat("token ", i, " of the prompt is ", prompt[i]))
                          .must(cat("be below the model's vocab_size, ", vocab_size))
                          .remedy("Use the tokenizer that the model was trained with."));
  }
}

std::vector<int32_t> generate(model::Decoder& decoder, const std::vector<int32_t>& prompt,
                              std::span<const int32_t> stop_ids, const SamplingOptions& options,
                              at::Device device, const std::function<void(int32_t)>& emit) {
  check_sampling_options(options);
  check_prompt(prompt, decoder.config().vocab_size);
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  // The last new token is never fed back, so the cache holds one token less than the text.
  const auto cache = decoder.make_cache(/*batch=*/1, prompt_tokens + options.max_new_tokens - 1);

  std::vector<int32_t> generated;
  at::Tensor next = ids_tensor(prompt, device);  // [S, 1]; afterwards [1, 1]
  while (true) {
    const at::Tensor logits =
        decoder.next_token_logits(next, *cache).to(at::kCPU).contiguous();  // [1, V]
    const std::span<const float> row(logits.const_data_ptr<float>(),
                                     static_cast<size_t>(logits.numel()));
    const int64_t position = prompt_tokens + static_cast<int64_t>(generated.size());
    const int32_t id = sample_token(row, options, position);
    if (std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end()) break;
    generated.push_back(id);
    emit(id);
    if (static_cast<int64_t>(generated.size()) == options.max_new_tokens) break;
    next = ids_tensor(std::span(&generated.back(), 1), device);
  }
  return generated;
}

}  // namespace tptrain::inference
