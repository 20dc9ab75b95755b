// Llama (transformers: LlamaConfig): one key biases q, k, v and o together; the feed-forward has
// none.
#include "model/families/family.h"

namespace tptrain::model {

namespace {

void read(ConfigKeys& keys, DecoderConfig& config) {
  config.qkv_bias = keys.boolean("attention_bias", false);
  config.o_bias = config.qkv_bias;
  keys.refuse_unless("mlp_bias", false, "The decoder's feed-forward has no biases.");
}

void write(const DecoderConfig& config, nlohmann::ordered_json& out) {
  out["attention_bias"] = config.qkv_bias;
  out["mlp_bias"] = false;
}

}  // namespace

Family llama_family() {
  return {.model_type = "llama",
          .architecture = "LlamaForCausalLM",
          .read = read,
          .write = write,
          .attention_bias = AttentionBias::optional};
}

}  // namespace tptrain::model
