// Mistral 7B (transformers: MistralConfig): no biases, and in the first version a window over the
// last sliding_window positions. Sequences no longer than it are not touched by it; longer ones are
// refused (check_seq_length).
#include "model/families/family.h"
#include "model/families/llama_keys.h"

namespace tptrain::model {

namespace {

constexpr int64_t kDefaultWindow = 4096;  // transformers' where the key is left out

void read_mistral(ConfigKeys& keys, DecoderConfig& config) {
  read_llama_keys(keys, {.num_key_value_heads = 8}, config);
  config.sliding_window =
      keys.is_null("sliding_window") ? 0 : keys.positive_integer("sliding_window", kDefaultWindow);
  keys.refuse_unless("attention_bias", false, "Mistral has no biases.");
}

void write_mistral(const DecoderConfig& config, nlohmann::ordered_json& out) {
  write_llama_keys(config, out);
  out["sliding_window"] = nullptr;
  if (config.sliding_window > 0) out["sliding_window"] = config.sliding_window;
}

}  // namespace

Family mistral_family() {
  return {.model_type = "mistral",
          .architecture = "MistralForCausalLM",
          .attention_bias = AttentionBias::never,
          .set_form = [](DecoderConfig&) {},
          .read = read_mistral,
          .write = write_mistral,
          .stored = stored_with_llama_names};
}

}  // namespace tptrain::model
