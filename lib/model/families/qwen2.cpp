// Qwen2 and Qwen2.5 (transformers: Qwen2Config): q, k, v always have biases, o never.
#include "model/families/family.h"

namespace tptrain::model {

namespace {

void read(ConfigKeys& keys, DecoderConfig& config) {
  config.qkv_bias = true;
  config.o_bias = false;
  keys.refuse_unless("attention_bias", true, "Qwen2 has biases of q, k and v in every checkpoint.");
  keys.refuse_unless("use_sliding_window", false,
                     "The decoder attends to the whole sequence; sliding windows are not built.");
  keys.refuse_unless("use_mrope", false, "Multimodal rotary positions are not built.");
}

void write(const DecoderConfig&, nlohmann::ordered_json& out) { out["use_sliding_window"] = false; }

}  // namespace

Family qwen2_family() {
  return {.model_type = "qwen2",
          .architecture = "Qwen2ForCausalLM",
          .read = read,
          .write = write,
          .attention_bias = AttentionBias::always_qkv};
}

}  // namespace tptrain::model
