#include "model/decoder_config.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/files.h"
#include "base/text.h"
#include "model/config_keys.h"
#include "model/families/family.h"

namespace tptrain::model {

namespace {

using nlohmann::json;

constexpr int64_t kConfigBytesLimit = int64_t{16} << 20;  // a config.json is a few KiB

Problem unknown_family(const std::string& model_type) {
  const std::string known = join(family_names());
  return problem(cat("model_type is \"", model_type, "\""))
      .must(cat("be one of: ", known))
      .remedy("Other architectures differ in more than names; tptrain would train them wrongly.");
}

// What must hold between the sizes, however they were given. Sizes that are missing or malformed
// are 0 and have been complained about.
void check_shape(DecoderConfig& config, bool head_dim_given, const std::string& where,
                 std::vector<Problem>& problems) {
  const auto complain = [&](Problem p) { problems.push_back(std::move(p).at(where)); };
  const int64_t heads = config.num_attention_heads;
  if (heads <= 0 || config.hidden_size <= 0) return;
  if (!head_dim_given) {
    if (config.hidden_size % heads != 0) {
      complain(
          problem(cat("hidden_size is ", config.hidden_size, " and num_attention_heads is ", heads))
              .must("divide, or head_dim must be given")
              .remedy("Set head_dim, or choose sizes that divide."));
      return;
    }
    config.head_dim = config.hidden_size / heads;
  }
  if (config.head_dim % 2 != 0) {
    complain(problem(cat("head_dim is ", config.head_dim,
                         head_dim_given ? "" : " (hidden_size / num_attention_heads)"))
                 .must("be even")
                 .remedy("The rotary embedding turns pairs of elements."));
  }
  if (config.num_key_value_heads > 0 && heads % config.num_key_value_heads != 0) {
    complain(problem(cat("num_attention_heads is ", heads, " and num_key_value_heads is ",
                         config.num_key_value_heads))
                 .must("be a multiple of num_key_value_heads")
                 .remedy("Each key/value head serves an equal group of query heads."));
  }
}

// rope_theta and the kind of rotary embedding: at the top with rope_scaling (transformers 4) or
// together in rope_parameters (transformers 5).
void read_rotary(const json& root, const std::string& name, ConfigKeys& keys, DecoderConfig& config,
                 std::vector<Problem>& problems) {
  config.rope_theta = keys.positive_number("rope_theta", config.rope_theta);
  for (const std::string key : {"rope_scaling", "rope_parameters"}) {
    const json* rotary = keys.object(key);
    if (!rotary) continue;
    ConfigKeys inner(*rotary, cat(name, ": ", key), problems);
    config.rope_theta = inner.positive_number("rope_theta", config.rope_theta);
    const std::string why = "Only the plain rotary embedding is built; scaled forms are not.";
    for (const std::string type_key : {"rope_type", "type"}) {
      inner.refuse_unless(type_key, "default", why);
    }
    if (!inner.has("rope_type") && !inner.has("type") && inner.has("factor")) {
      inner.refuse_unless("factor", 1.0, why);
    }
    inner.refuse_unless("partial_rotary_factor", 1.0, "Every element of a head is rotated.");
  }
  keys.refuse_unless("partial_rotary_factor", 1.0, "Every element of a head is rotated.");
}

void refuse_unsupported(ConfigKeys& keys) {
  keys.refuse_unless("hidden_act", "silu", "The decoder's feed-forward is SwiGLU.");
  keys.refuse_unless("attention_dropout", 0.0, "The decoder has no dropout; set it to 0.");
  keys.refuse_unless("quantization_config", nullptr,
                     "Quantized weights cannot be trained; use the unquantized model.");
  for (const std::string key : {"num_experts", "num_local_experts", "n_routed_experts",
                                "num_experts_per_tok", "moe_intermediate_size"}) {
    keys.refuse_unless(key, nullptr, "Mixtures of experts are not built.");
  }
}

void refuse_layer_types(const json& root, ConfigKeys& keys) {
  const auto types = root.find("layer_types");
  if (types == root.end() || types->is_null()) return;
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

json parse_object(const std::string& text, const std::string& name) {
  json root;
  try {
    root = json::parse(text);
  } catch (const json::exception& error) {  // malformed, or a number beyond double
    throw ConfigError(problem(cat("the text is no JSON (", error.what(), ")"))
                          .at(name)
                          .remedy("Copy the model's config.json again."));
  }
  if (root.is_object()) return root;
  throw ConfigError(problem(cat("the file holds a JSON ", root.type_name()))
                        .at(name)
                        .must("hold an object, as every config.json does"));
}

// The directory of a pretrained model.
DecoderConfig config_of_directory(const std::string& path) {
  const std::filesystem::path file = std::filesystem::path(path) / "config.json";
  std::error_code ignored;  // an unreadable path is not there for us
  if (!std::filesystem::is_regular_file(file, ignored)) {
    throw ConfigError(problem(cat("model.path is ", path, ", and ", file.string(), " is no file"))
                          .remedy("Name the directory of a Hugging Face model: config.json, "
                                  "*.safetensors and the tokenizer stand in it."));
  }
  return decoder_config_from_json(read_file(file, kConfigBytesLimit), file.string());
}

DecoderConfig config_of_architecture(const config::ArchitectureConfig& given,
                                     int64_t tokenizer_vocab_size, std::vector<Problem>& problems) {
  const std::string where = "model.architecture";
  DecoderConfig config;
  const Family* family = find_family(given.model_type);
  if (!family) throw ConfigError(unknown_family(given.model_type).at(where));

  config.model_type = given.model_type;
  config.vocab_size = given.vocab_size > 0 ? given.vocab_size : tokenizer_vocab_size;
  config.hidden_size = given.hidden_size;
  config.intermediate_size = given.intermediate_size;
  config.num_hidden_layers = given.num_hidden_layers;
  config.num_attention_heads = given.num_attention_heads;
  config.num_key_value_heads =
      given.num_key_value_heads > 0 ? given.num_key_value_heads : given.num_attention_heads;
  config.head_dim = given.head_dim;
  config.norm_eps = given.rms_norm_eps;
  config.rope_theta = given.rope_theta;
  config.tie_word_embeddings = given.tie_word_embeddings;
  config.initializer_range = given.initializer_range;
  const bool always_qkv = family->attention_bias == AttentionBias::always_qkv;
  config.qkv_bias = given.attention_bias.value_or(always_qkv);
  config.o_bias = config.qkv_bias && !always_qkv;
  if (always_qkv && !config.qkv_bias) {
    problems.push_back(problem("attention_bias is false")
                           .at(where)
                           .must(cat("be true or absent for ", family->model_type))
                           .remedy("Use model_type llama for a model without these biases."));
  }

  const std::pair<const char*, int64_t> required[] = {
      {"vocab_size", config.vocab_size},
      {"hidden_size", config.hidden_size},
      {"intermediate_size", config.intermediate_size},
      {"num_hidden_layers", config.num_hidden_layers},
      {"num_attention_heads", config.num_attention_heads}};
  for (const auto& [key, value] : required) {
    if (value > 0) continue;
    problems.push_back(
        problem(cat(key, " is ", value)).at(where).must("be given, as an integer above 0"));
  }
  check_shape(config, given.head_dim > 0, where, problems);
  return config;
}

}  // namespace

DecoderConfig decoder_config(const config::ModelConfig& model, int64_t tokenizer_vocab_size) {
  std::vector<Problem> problems;
  const DecoderConfig config =
      model.architecture
          ? config_of_architecture(*model.architecture, tokenizer_vocab_size, problems)
          : config_of_directory(model.path);
  // An id beyond the table would read nothing and train nothing, without an error. (The other way
  // round is usual: tables are padded.)
  if (config.vocab_size > 0 && config.vocab_size < tokenizer_vocab_size) {
    problems.push_back(problem(cat("the model's vocab_size is ", config.vocab_size,
                                   " and the tokenizer has ", tokenizer_vocab_size, " ids"))
                           .must("hold every id of the tokenizer")
                           .remedy("Use the tokenizer that belongs to the model, or leave "
                                   "vocab_size out of model.architecture."));
  }
  if (!problems.empty()) throw ConfigError(problems);
  return config;
}

DecoderConfig decoder_config_from_json(const std::string& json_text, const std::string& name) {
  const json root = parse_object(json_text, name);
  std::vector<Problem> problems;
  ConfigKeys keys(root, name, problems);

  DecoderConfig config;
  config.model_type = keys.text("model_type", "");
  if (!keys.has("model_type")) {
    keys.complain(problem("model_type is missing").must(cat("be one of: ", join(family_names()))));
  }
  if (!problems.empty()) throw ConfigError(problems);
  const Family* family = find_family(config.model_type);
  // Of another architecture nothing else can be judged.
  if (!family) throw ConfigError(unknown_family(config.model_type).at(name));

  config.vocab_size = keys.positive_integer("vocab_size", std::nullopt);
  config.hidden_size = keys.positive_integer("hidden_size", std::nullopt);
  config.intermediate_size = keys.positive_integer("intermediate_size", std::nullopt);
  config.num_hidden_layers = keys.positive_integer("num_hidden_layers", std::nullopt);
  config.num_attention_heads = keys.positive_integer("num_attention_heads", std::nullopt);
  config.num_key_value_heads =
      keys.positive_integer("num_key_value_heads", config.num_attention_heads);
  config.head_dim = keys.positive_integer("head_dim", 0);
  config.norm_eps = keys.positive_number("rms_norm_eps", config.norm_eps);
  config.tie_word_embeddings = keys.boolean("tie_word_embeddings", false);
  config.initializer_range = keys.positive_number("initializer_range", config.initializer_range);
  read_rotary(root, name, keys, config, problems);
  family->read(keys, config);
  refuse_unsupported(keys);
  refuse_layer_types(root, keys);
  check_shape(config, keys.has("head_dim"), name, problems);
  if (!problems.empty()) throw ConfigError(problems);
  return config;
}

std::string to_json(const DecoderConfig& config) {
  const Family* family = find_family(config.model_type);
  if (!family) throw InternalError(unknown_family(config.model_type));
  nlohmann::ordered_json out;
  out["architectures"] = {std::string(family->architecture)};
  out["model_type"] = config.model_type;
  out["vocab_size"] = config.vocab_size;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["num_hidden_layers"] = config.num_hidden_layers;
  out["num_attention_heads"] = config.num_attention_heads;
  out["num_key_value_heads"] = config.num_key_value_heads;
  out["head_dim"] = config.head_dim;
  out["hidden_act"] = "silu";
  out["rms_norm_eps"] = config.norm_eps;
  out["rope_theta"] = config.rope_theta;
  out["tie_word_embeddings"] = config.tie_word_embeddings;
  out["initializer_range"] = config.initializer_range;
  family->write(config, out);
  return out.dump(2) + "\n";
}

}  // namespace tptrain::model
