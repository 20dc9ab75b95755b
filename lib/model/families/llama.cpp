// Llama 2 and 3 (transformers: LlamaConfig): one key biases q, k, v and o together, another the
// feed-forward.
#include "model/families/family.h"
#include "model/families/llama_keys.h"

namespace tptrain::model {

namespace {

void read_llama(ConfigKeys& keys, DecoderConfig& config) {
  read_llama_keys(keys, {}, config);
  config.qkv_bias = keys.boolean("attention_bias", false);
  config.o_bias = config.qkv_bias;
  config.mlp_bias = keys.boolean("mlp_bias", false);
}

void write_llama(const DecoderConfig& config, nlohmann::ordered_json& out) {
  write_llama_keys(config, out);
  out["attention_bias"] = config.qkv_bias;
  out["mlp_bias"] = config.mlp_bias;
}

}  // namespace

Family llama_family() {
  return {.model_type = "llama",
          .architecture = "LlamaForCausalLM",
          .attention_bias = AttentionBias::optional,
          .set_form = [](DecoderConfig&) {},
          .read = read_llama,
          .write = write_llama,
          .stored = stored_with_llama_names};
}

}  // namespace tptrain::model
