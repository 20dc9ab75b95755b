// What a Hugging Face architecture is in terms of the one decoder: its config keys and nothing
// else. The families here name their tensors alike (decoder.cpp); one that does not would bring a
// name map.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "model/config_keys.h"
#include "model/decoder_config.h"
#include "sharding/stored_model.h"

namespace tptrain::model {

/// Which linears of attention have biases.
enum class AttentionBias {
  optional,    // the key attention_bias: q, k, v and o, or none
  always_qkv,  // q, k and v in every model, o in none
};

struct Family {
  std::string_view model_type;    // "llama"
  std::string_view architecture;  // "LlamaForCausalLM"
  /// Reads the keys that this family adds to the common ones; refuses those the decoder cannot do.
  void (*read)(ConfigKeys& keys, DecoderConfig& config);
  /// Writes them.
  void (*write)(const DecoderConfig& config, nlohmann::ordered_json& out);
  AttentionBias attention_bias;
};

/// The family of a model_type, or null.
const Family* find_family(std::string_view model_type);
std::vector<std::string> family_names();

/// How the tensors of such a model lie in Hugging Face files.
sharding::StoredModel stored_model(const DecoderConfig& config);

/// One a file of this folder.
Family llama_family();
Family qwen2_family();

}  // namespace tptrain::model
