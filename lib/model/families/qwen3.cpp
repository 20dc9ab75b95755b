// Qwen3 (transformers: Qwen3Config): each head of q and k has an RMSNorm of its own, head_dim is
// chosen freely, one key biases q, k, v and o together.
#include "model/families/family.h"
#include "model/families/llama_keys.h"

namespace tptrain::model {

namespace {

void read_qwen3(ConfigKeys& keys, DecoderConfig& config) {
  read_llama_keys(keys, {.num_key_value_heads = 32, .head_dim = 128}, config);
  config.qkv_bias = keys.boolean("attention_bias", false);
  config.o_bias = config.qkv_bias;
  refuse_windowed_layers(keys, config);
}

void write_qwen3(const DecoderConfig& config, nlohmann::ordered_json& out) {
  write_llama_keys(config, out);
  out["attention_bias"] = config.qkv_bias;
  out["use_sliding_window"] = false;
}

}  // namespace

Family qwen3_family() {
  return {.model_type = "qwen3",
          .architecture = "Qwen3ForCausalLM",
          .attention_bias = AttentionBias::optional,
          .set_form = [](DecoderConfig& config) { config.qk_norm = true; },
          .read = read_qwen3,
          .write = write_qwen3,
          .stored = stored_with_llama_names};
}

}  // namespace tptrain::model
