// GPT-2 (transformers: GPT2Config): LayerNorm, learned positions, GELU, biases everywhere. Its
// files hold the weights of linears as [in, out], and q, k, v as one tensor.
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "model/families/family.h"
#include "model/families/llama_keys.h"

namespace tptrain::model {

namespace {

using sharding::StoredModel;
using sharding::StoredTensor;

void set_form_gpt2(DecoderConfig& config) {
  config.norm = Norm::layer;
  config.feed_forward = FeedForward::gelu;
  config.positions = Positions::learned;
  config.mlp_bias = true;
}

void read_gpt2(ConfigKeys& keys, DecoderConfig& config) {
  config.qkv_bias = true;
  config.o_bias = true;
  config.vocab_size = keys.positive_integer("vocab_size", std::nullopt);
  config.hidden_size = keys.positive_integer("n_embd", std::nullopt);
  config.intermediate_size = keys.positive_integer("n_inner", 4 * config.hidden_size);
  config.num_hidden_layers = keys.positive_integer("n_layer", std::nullopt);
  config.num_attention_heads = keys.positive_integer("n_head", std::nullopt);
  config.num_key_value_heads = config.num_attention_heads;
  config.max_position_embeddings = keys.positive_integer("n_positions", std::nullopt);
  config.norm_eps = keys.positive_number("layer_norm_epsilon", 1e-5);
  config.tie_word_embeddings = keys.boolean("tie_word_embeddings", true);
  config.initializer_range = keys.positive_number("initializer_range", config.initializer_range);
  const std::string activation = keys.text("activation_function", "gelu_new");
  if (activation != "gelu_new" && activation != "gelu_pytorch_tanh") {  // two names of one function
    keys.complain(problem(cat("activation_function is \"", activation, "\""))
                      .must("be \"gelu_new\" or \"gelu_pytorch_tanh\"")
                      .remedy("Other activations are not built."));
  }
  // The keys *_pdrop stand at 0.1 in every published file; dropout is the run file's to decide.
  keys.refuse_unless("scale_attn_weights", true, "Attention scores are scaled by 1 / sqrt(D).");
  keys.refuse_unless("scale_attn_by_inverse_layer_idx", false,
                     "Attention scores are scaled alike in every layer.");
  keys.refuse_unless("reorder_and_upcast_attn", false,
                     "Attention works in fp32 inside in any case; set it to false.");
  keys.refuse_unless("add_cross_attention", false, "Cross attention is not built.");
}

void write_gpt2(const DecoderConfig& config, nlohmann::ordered_json& out) {
  out["vocab_size"] = config.vocab_size;
  out["n_embd"] = config.hidden_size;
  out["n_inner"] = config.intermediate_size;
  out["n_layer"] = config.num_hidden_layers;
  out["n_head"] = config.num_attention_heads;
  out["n_positions"] = config.max_position_embeddings;
  out["n_ctx"] = config.max_position_embeddings;
  out["activation_function"] = "gelu_new";
  out["layer_norm_epsilon"] = config.norm_eps;
  out["tie_word_embeddings"] = config.tie_word_embeddings;
  out["initializer_range"] = config.initializer_range;
}

class Stored {
 public:
  void renamed(std::string name, std::string stored_name, const std::vector<int64_t>& shape) {
    StoredTensor tensor = stored_as_named(std::move(name), shape);
    tensor.stored_name = std::move(stored_name);
    model_.tensors.push_back(std::move(tensor));
  }
  void weight_and_bias(const std::string& name, const std::string& stored_name, int64_t size) {
    renamed(name + ".weight", stored_name + ".weight", {size});
    renamed(name + ".bias", stored_name + ".bias", {size});
  }
  /// Linears [out, in] that lie side by side as one [in, n * out], and their biases.
  void linears(const std::vector<std::string>& names, const std::string& stored_name, int64_t out,
               int64_t in) {
    const int64_t all = out * static_cast<int64_t>(names.size());
    int64_t first = 0;
    for (const std::string& name : names) {
      model_.tensors.push_back({.name = name + ".weight",
                                .shape = {out, in},
                                .stored_name = stored_name + ".weight",
                                .stored_shape = {in, all},
                                .transposed = true,
                                .first = first});
      first += out;
    }
    first = 0;
    for (const std::string& name : names) {
      model_.tensors.push_back({.name = name + ".bias",
                                .shape = {out},
                                .stored_name = stored_name + ".bias",
                                .stored_shape = {all},
                                .first = first});
      first += out;
    }
  }
  StoredModel& model() { return model_; }

 private:
  StoredModel model_;
};

StoredModel stored_gpt2(const DecoderConfig& config) {
  const int64_t hidden = config.hidden_size;
  Stored out;
  out.renamed("model.embed_tokens.weight", "transformer.wte.weight", {config.vocab_size, hidden});
  out.renamed("model.embed_positions.weight", "transformer.wpe.weight",
              {config.max_position_embeddings, hidden});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string layer = cat("model.layers.", i);
    const std::string block = cat("transformer.h.", i);
    const std::string attention = layer + ".self_attn";
    out.weight_and_bias(layer + ".input_layernorm", block + ".ln_1", hidden);
    out.linears({attention + ".q_proj", attention + ".k_proj", attention + ".v_proj"},
                block + ".attn.c_attn", hidden, hidden);
    out.linears({attention + ".o_proj"}, block + ".attn.c_proj", hidden, hidden);
    out.weight_and_bias(layer + ".post_attention_layernorm", block + ".ln_2", hidden);
    out.linears({layer + ".mlp.up_proj"}, block + ".mlp.c_fc", config.intermediate_size, hidden);
    out.linears({layer + ".mlp.down_proj"}, block + ".mlp.c_proj", hidden,
                config.intermediate_size);
  }
  out.weight_and_bias("model.norm", "transformer.ln_f", hidden);
  StoredModel& model = out.model();
  model.optional_prefix = "transformer.";  // the first published files lack it
  model.ignored_suffixes = {".attn.bias", ".attn.masked_bias"};  // the causal mask
  if (config.tie_word_embeddings) {
    model.ignored_suffixes.push_back("lm_head.weight");
  } else {
    model.tensors.push_back(stored_as_named("lm_head.weight", {config.vocab_size, hidden}));
  }
  return std::move(model);
}

}  // namespace

Family gpt2_family() {
  return {.model_type = "gpt2",
          .architecture = "GPT2LMHeadModel",
          .attention_bias = AttentionBias::always,
          .fused_heads = true,
          .set_form = set_form_gpt2,
          .read = read_gpt2,
          .write = write_gpt2,
          .stored = stored_gpt2};
}

}  // namespace tptrain::model
