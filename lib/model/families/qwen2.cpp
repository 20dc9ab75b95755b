// Qwen2 and Qwen2.5 (transformers: Qwen2Config): q, k, v always have biases, o never.
#include "model/families/family.h"
#include "model/families/llama_keys.h"

namespace tptrain::model {

namespace {

void read_qwen2(ConfigKeys& keys, DecoderConfig& config) {
  read_llama_keys(keys, {.num_key_value_heads = 32}, config);
  config.qkv_bias = true;
  keys.refuse_unless("attention_bias", true, "Qwen2 has biases of q, k and v in every checkpoint.");
  refuse_windowed_layers(keys, config);
  keys.refuse_unless("use_mrope", false, "Multimodal rotary positions are not built.");
}

void write_qwen2(const DecoderConfig& config, nlohmann::ordered_json& out) {
  write_llama_keys(config, out);
  out["use_sliding_window"] = false;
}

}  // namespace

Family qwen2_family() {
  return {.model_type = "qwen2",
          .architecture = "Qwen2ForCausalLM",
          .attention_bias = AttentionBias::always_qkv,
          .set_form = [](DecoderConfig&) {},
          .read = read_qwen2,
          .write = write_qwen2,
          .stored = stored_with_llama_names};
}

}  // namespace tptrain::model
