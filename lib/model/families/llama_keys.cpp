#include "model/families/llama_keys.h"

#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::model {

namespace {

using nlohmann::json;
using sharding::StoredModel;
using sharding::StoredTensor;

void require(ConfigKeys& keys, const std::string& key) {
  if (!keys.has(key)) keys.complain(problem(cat(key, " is missing")).must("be a number above 0"));
}

// What scales the frequencies. Source: transformers, modeling_rope_utils.
void read_scaling(ConfigKeys& keys, RotaryScaling& scaling) {
  const std::string type_key = keys.has("rope_type") ? "rope_type" : "type";
  const std::string type = keys.text(type_key, "default");
  if (type == "default") {
    if (!keys.has(type_key))
      keys.refuse_unless("factor", 1.0, "Without a rope_type it is unclear what is scaled.");
    return;
  }
  if (type != "linear" && type != "llama3") {
    keys.complain(problem(cat(type_key, " is \"", type, "\""))
                      .must("be one of: default, linear, llama3")
                      .remedy("Other scaled forms of the rotary embedding are not built."));
    return;
  }
  require(keys, "factor");
  scaling.factor = keys.positive_number("factor", 1.0);
  scaling.kind = RotaryScaling::Kind::linear;
  if (type == "linear") return;
  scaling.kind = RotaryScaling::Kind::llama3;
  require(keys, "low_freq_factor");
  require(keys, "high_freq_factor");
  scaling.low_freq_factor = keys.positive_number("low_freq_factor", 1.0);
  scaling.high_freq_factor = keys.positive_number("high_freq_factor", 4.0);
  scaling.original_max_position_embeddings =
      keys.positive_integer("original_max_position_embeddings", std::nullopt);
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    keys.complain(problem(cat("high_freq_factor is ", scaling.high_freq_factor,
                              " and low_freq_factor is ", scaling.low_freq_factor))
                      .must("be the larger one"));
  }
}

// rope_theta and the kind of rotary embedding: at the top with rope_scaling (transformers 4) or
// together in rope_parameters (transformers 5). Where a file has both, transformers takes the
// first.
void read_rotary(ConfigKeys& keys, DecoderConfig& config) {
  const std::string all_rotated = "Every element of a head is rotated.";
  config.rope_theta = keys.positive_number("rope_theta", config.rope_theta);
  keys.refuse_unless("partial_rotary_factor", 1.0, all_rotated);
  for (const std::string key : {"rope_scaling", "rope_parameters"}) {
    std::optional<ConfigKeys> rotary = keys.section(key);
    if (!rotary) continue;
    config.rope_theta = rotary->positive_number("rope_theta", config.rope_theta);
    rotary->refuse_unless("partial_rotary_factor", 1.0, all_rotated);
    read_scaling(*rotary, config.rope_scaling);
    return;
  }
}

void refuse_layer_types(ConfigKeys& keys) {
  const json* types = keys.value("layer_types");
  if (!types) return;
  if (!types->is_array()) {
    keys.complain(problem(cat("layer_types is ", types->dump())).must("be a list"));
    return;
  }
  for (const json& type : *types) {
    if (type == "full_attention") continue;
    keys.complain(problem(cat("layer_types holds ", type.dump()))
                      .must("hold \"full_attention\" only")
                      .remedy("The decoder attends to the whole sequence in every layer."));
    return;
  }
}

}  // namespace

void read_llama_keys(ConfigKeys& keys, const LlamaDefaults& defaults, DecoderConfig& config) {
  config.vocab_size = keys.positive_integer("vocab_size", std::nullopt);
  config.hidden_size = keys.positive_integer("hidden_size", std::nullopt);
  config.intermediate_size = keys.positive_integer("intermediate_size", std::nullopt);
  config.num_hidden_layers = keys.positive_integer("num_hidden_layers", std::nullopt);
  config.num_attention_heads = keys.positive_integer("num_attention_heads", std::nullopt);
  const bool as_query_heads =
      defaults.num_key_value_heads == 0 || keys.is_null("num_key_value_heads");
  config.num_key_value_heads =
      keys.positive_integer("num_key_value_heads", as_query_heads ? config.num_attention_heads
                                                                  : defaults.num_key_value_heads);
  config.head_dim =
      keys.positive_integer("head_dim", keys.is_null("head_dim") ? 0 : defaults.head_dim);
  config.max_position_embeddings = keys.positive_integer("max_position_embeddings", 0);
  config.norm_eps = keys.positive_number("rms_norm_eps", config.norm_eps);
  config.tie_word_embeddings = keys.boolean("tie_word_embeddings", false);
  config.initializer_range = keys.positive_number("initializer_range", config.initializer_range);
  read_rotary(keys, config);
  const json* activation = keys.value("hidden_act");
  if (!activation || *activation != "swish") {  // another name of silu
    keys.refuse_unless("hidden_act", "silu", "The family's feed-forward is SwiGLU.");
  }
  config.attention_dropout = keys.fraction("attention_dropout", 0.0);
  for (const std::string key : {"num_experts", "num_local_experts", "n_routed_experts",
                                "num_experts_per_tok", "moe_intermediate_size"}) {
    keys.refuse_unless(key, nullptr, "Mixtures of experts are not built.");
  }
  refuse_layer_types(keys);
}

void write_llama_keys(const DecoderConfig& config, nlohmann::ordered_json& out) {
  out["vocab_size"] = config.vocab_size;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["num_hidden_layers"] = config.num_hidden_layers;
  out["num_attention_heads"] = config.num_attention_heads;
  out["num_key_value_heads"] = config.num_key_value_heads;
  out["head_dim"] = config.head_dim;
  if (config.max_position_embeddings > 0)
    out["max_position_embeddings"] = config.max_position_embeddings;
  out["hidden_act"] = "silu";
  out["rms_norm_eps"] = config.norm_eps;
  out["rope_theta"] = config.rope_theta;
  const RotaryScaling& scaling = config.rope_scaling;
  if (scaling.kind == RotaryScaling::Kind::linear) {
    out["rope_scaling"] = {{"rope_type", "linear"}, {"factor", scaling.factor}};
  } else if (scaling.kind == RotaryScaling::Kind::llama3) {
    out["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", scaling.factor},
        {"low_freq_factor", scaling.low_freq_factor},
        {"high_freq_factor", scaling.high_freq_factor},
        {"original_max_position_embeddings", scaling.original_max_position_embeddings}};
  }
  out["tie_word_embeddings"] = config.tie_word_embeddings;
  out["initializer_range"] = config.initializer_range;
  if (config.attention_dropout > 0) out["attention_dropout"] = config.attention_dropout;
}

void refuse_windowed_layers(ConfigKeys& keys, const DecoderConfig& config) {
  if (!keys.boolean("use_sliding_window", false)) return;
  constexpr int64_t kDefaultFirst = 28;  // of transformers' Qwen2Config and Qwen3Config
  // An explicit 0 is no positive integer, and means every layer.
  const json* first = keys.value("max_window_layers");
  const int64_t first_windowed =
      first && *first == 0 ? 0 : keys.positive_integer("max_window_layers", kDefaultFirst);
  if (keys.is_null("sliding_window") || first_windowed >= config.num_hidden_layers) return;
  keys.complain(
      problem(cat("use_sliding_window is true, with max_window_layers ", first_windowed, " of ",
                  config.num_hidden_layers, " layers"))
          .must("be false or absent")
          .remedy("The decoder attends to the whole sequence; sliding windows are not built."));
}

StoredTensor stored_as_named(std::string name, std::vector<int64_t> shape) {
  return {.name = name, .shape = shape, .stored_name = name, .stored_shape = shape};
}

StoredModel stored_with_llama_names(const DecoderConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t ffn = config.intermediate_size;
  const int64_t q_width = config.num_attention_heads * config.head_dim;
  const int64_t kv_width = config.num_key_value_heads * config.head_dim;
  StoredModel model;
  const auto add = [&](std::string name, std::vector<int64_t> shape) {
    model.tensors.push_back(stored_as_named(std::move(name), std::move(shape)));
  };
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    add(name + ".weight", {out, in});
    if (bias) add(name + ".bias", {out});
  };
  add("model.embed_tokens.weight", {config.vocab_size, hidden});
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string layer = cat("model.layers.", i);
    linear(layer + ".self_attn.q_proj", q_width, hidden, config.qkv_bias);
    linear(layer + ".self_attn.k_proj", kv_width, hidden, config.qkv_bias);
    linear(layer + ".self_attn.v_proj", kv_width, hidden, config.qkv_bias);
    linear(layer + ".self_attn.o_proj", hidden, q_width, config.o_bias);
    if (config.qk_norm) {
      add(layer + ".self_attn.q_norm.weight", {config.head_dim});
      add(layer + ".self_attn.k_norm.weight", {config.head_dim});
    }
    linear(layer + ".mlp.gate_proj", ffn, hidden, config.mlp_bias);
    linear(layer + ".mlp.up_proj", ffn, hidden, config.mlp_bias);
    linear(layer + ".mlp.down_proj", hidden, ffn, config.mlp_bias);
    add(layer + ".input_layernorm.weight", {hidden});
    add(layer + ".post_attention_layernorm.weight", {hidden});
  }
  add("model.norm.weight", {hidden});
  model.optional_prefix = "model.";  // base models (LlamaModel) are saved without it
  model.ignored_suffixes = {"rotary_emb.inv_freq"};  // written by transformers before 4.32
  if (config.tie_word_embeddings) {
    model.ignored_suffixes.push_back("lm_head.weight");
  } else {
    add("lm_head.weight", {config.vocab_size, hidden});
  }
  return model;
}

}  // namespace tptrain::model
