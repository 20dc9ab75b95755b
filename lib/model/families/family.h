// What a Hugging Face architecture is in terms of the one decoder: its config keys, a map of its
// tensors' names, and nothing else. One small file a family; docs/families.md tells how to add one.
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
  never,
  optional,    // the key attention_bias: q, k, v and o, or none
  always_qkv,  // q, k and v in every model, o in none
  always,      // all four in every model
};

struct Family {
  std::string_view model_type;    // "llama"
  std::string_view architecture;  // "LlamaForCausalLM"
  AttentionBias attention_bias;
  /// Each query head has its own k and v, and together they are as wide as the hidden state.
  bool fused_heads = false;
  /// What every model of the family has beyond that: kind of norm, feed-forward and positions.
  void (*set_form)(DecoderConfig& config);
  /// Reads the keys of a config.json into a config with the family's form; refuses what the decoder
  /// cannot do.
  void (*read)(ConfigKeys& keys, DecoderConfig& config);
  /// Writes them, all but model_type and architectures.
  void (*write)(const DecoderConfig& config, nlohmann::ordered_json& out);
  /// Where its tensors lie in files, in the order of transformers' state_dict.
  sharding::StoredModel (*stored)(const DecoderConfig& config);
};

/// The family of a model_type, or null.
const Family* find_family(std::string_view model_type);
std::vector<std::string> family_names();

/// How the tensors of such a model lie in Hugging Face files.
sharding::StoredModel stored_model(const DecoderConfig& config);

/// One a file of this folder.
Family llama_family();
Family qwen2_family();
Family qwen3_family();
Family mistral_family();
Family gpt2_family();

}  // namespace tptrain::model
