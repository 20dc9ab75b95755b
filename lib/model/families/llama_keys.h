// What the families descended from Llama share: the keys of their config.json and the names of
// their tensors, which are the decoder's own.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/config_keys.h"
#include "model/decoder_config.h"
#include "sharding/stored_model.h"

namespace tptrain::model {

/// transformers' values of keys left out, where the families differ.
struct LlamaDefaults {
  int64_t num_key_value_heads = 0;  // 0: as many as query heads
  int64_t head_dim = 0;             // 0: hidden_size / num_attention_heads
};

/// Reads sizes, norm, rotary embedding and tying; refuses the keys of forms that are not built.
void read_llama_keys(ConfigKeys& keys, const LlamaDefaults& defaults, DecoderConfig& config);
/// Writes them in the form of transformers 4, which 5 reads as well.
void write_llama_keys(const DecoderConfig& config, nlohmann::ordered_json& out);
/// Refuses windows that some layers look through while others do not (qwen2, qwen3): the layers
/// from max_window_layers on, where use_sliding_window is set.
void refuse_windowed_layers(ConfigKeys& keys, const DecoderConfig& config);

/// A tensor that is stored under its own name, as it is.
sharding::StoredTensor stored_as_named(std::string name, std::vector<int64_t> shape);
sharding::StoredModel stored_with_llama_names(const DecoderConfig& config);

}  // namespace tptrain::model
