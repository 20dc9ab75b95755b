// Shapes of published models that more than one test measures or plans, without their files.
#pragma once

#include "model/decoder_config.h"

namespace tptrain::testing {

/// Qwen2.5-0.5B, whose logits are a sixth of what a step of 16,384 tokens takes.
inline model::DecoderConfig qwen2_half_billion() {
  return {.model_type = "qwen2",
          .vocab_size = 151936,
          .hidden_size = 896,
          .intermediate_size = 4864,
          .num_hidden_layers = 24,
          .num_attention_heads = 14,
          .num_key_value_heads = 2,
          .head_dim = 64,
          .tie_word_embeddings = true,
          .qkv_bias = true};
}

}  // namespace tptrain::testing
