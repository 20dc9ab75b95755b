#include "model/decoder_config.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "base/directory.h"
#include "base/files.h"
#include "base/foreign_file.h"
#include "base/json_tree.h"
#include "base/python_json.h"
#include "base/text.h"
#include "model/config_keys.h"
#include "model/families/family.h"

namespace tptrain::model {

namespace {

using nlohmann::json;

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
  // No model comes near these; a file that says so is damaged, and would be believed until memory
  // ends.
  const std::tuple<const char*, int64_t, int64_t> bounds[] = {
      {"num_hidden_layers", config.num_hidden_layers, 10'000},
      {"hidden_size", config.hidden_size, 1 << 20},
      {"intermediate_size", config.intermediate_size, 1 << 24},
      {"num_attention_heads", config.num_attention_heads, 1 << 16},
      {"head_dim", config.head_dim, 1 << 16},
      {"vocab_size", config.vocab_size, 1 << 26}};
  for (const auto& [key, value, most] : bounds) {
    if (value > most)
      complain(problem(cat(key, " is ", value))
                   .must(cat("be at most ", most))
                   .remedy("Copy the model's config.json again."));
  }
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
  if (config.positions == Positions::rotary && config.head_dim % 2 != 0) {
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

// Of a family whose files hold q, k and v side by side, as wide as the hidden state.
void check_fused_heads(const DecoderConfig& config, const std::string& where,
                       std::vector<Problem>& problems) {
  const int64_t heads = config.num_attention_heads;
  if (config.num_key_value_heads != heads) {
    problems.push_back(
        problem(cat("num_key_value_heads is ", config.num_key_value_heads,
                    " and num_attention_heads is ", heads))
            .at(where)
            .must(cat("be the same for ", config.model_type, ", or num_key_value_heads absent")));
  }
  if (config.head_dim * heads != config.hidden_size) {
    problems.push_back(problem(cat("head_dim is ", config.head_dim))
                           .at(where)
                           .must(cat("be hidden_size / num_attention_heads for ", config.model_type,
                                     ", or absent")));
  }
}

json parse_object(const std::string& text, const std::string& name) {
  refuse_foreign_file(text, name);
  json root;
  try {
    root = parse_json_tree(quote_bare_numbers(text), name);
  } catch (const DataError& error) {
    std::string why = error.what();
    if (const std::string prefix = cat("data error: ", name, ": "); why.starts_with(prefix))
      why.erase(0, prefix.size());
    throw ConfigError(problem(cat("the text is no JSON (", why, ")"))
                          .at(name)
                          .remedy("Copy the model's config.json again."));
  }
  if (root.is_object()) return root;
  throw ConfigError(problem(cat("the file holds a JSON ", root.type_name()))
                        .at(name)
                        .must("hold an object, as every config.json does"));
}

// What an adapter's adapter_config.json names as its base; "" where it does not say.
std::string base_of_adapter(const std::filesystem::path& file) {
  const json root = json::parse(quote_bare_numbers(read_file(file, kMostConfigJsonBytes)), nullptr,
                                /*allow_exceptions=*/false);
  if (!root.is_object()) return "";
  const auto base = root.find("base_model_name_or_path");
  return base == root.end() || !base->is_string() ? "" : base->get<std::string>();
}

// The directory of a pretrained model.
DecoderConfig config_of_directory(const std::string& path) {
  check_model_directory(path);
  const std::filesystem::path file = std::filesystem::path(path) / "config.json";
  return decoder_config_from_json(read_file(file, kMostConfigJsonBytes), file.string());
}

void set_attention_bias(const Family& family, const std::optional<bool>& given,
                        DecoderConfig& config, std::vector<Problem>& problems) {
  const bool optional = family.attention_bias == AttentionBias::optional;
  const bool usual = family.attention_bias == AttentionBias::always_qkv ||
                     family.attention_bias == AttentionBias::always;
  config.qkv_bias = optional ? given.value_or(false) : usual;
  config.o_bias = config.qkv_bias && family.attention_bias != AttentionBias::always_qkv;
  if (optional || given.value_or(usual) == usual) return;
  problems.push_back(
      problem(cat("attention_bias is ", *given ? "true" : "false"))
          .at("model.architecture")
          .must(cat("be ", usual ? "true" : "false", " or absent for ", family.model_type))
          .remedy(cat("Use model_type llama for a model ", usual ? "without" : "with",
                      " these biases.")));
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
  config.max_position_embeddings = given.max_position_embeddings;
  family->set_form(config);
  set_attention_bias(*family, given.attention_bias, config, problems);

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
  if (config.positions == Positions::learned && config.max_position_embeddings == 0) {
    problems.push_back(problem("max_position_embeddings is 0")
                           .at(where)
                           .must(cat("be given for ", config.model_type, ", as an integer above 0"))
                           .remedy("Positions are learned: it is the longest sequence there will "
                                   "be."));
  }
  check_shape(config, given.head_dim > 0, where, problems);
  if (family->fused_heads) check_fused_heads(config, where, problems);
  return config;
}

}  // namespace

void check_model_directory(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path file = fs::path(path) / "config.json";
  const fs::path adapter = fs::path(path) / "adapter_config.json";
  if (is_file(adapter)) {
    const std::string base = base_of_adapter(adapter);
    throw ConfigError(
        problem(cat("this is the folder of an adapter (LoRA)",
                    base.empty() ? std::string() : cat(" of ", base), ": adapter_config.json"))
            .at(path)
            .must("hold a whole model and no adapter")
            .remedy("Train on from it with model.adapter, use it with --adapter, or merge it into "
                    "its base: tptrain export --adapter DIR --merge --out OUT. To use a base model "
                    "that lies here without its adapter, take the adapter's files away."));
  }
  if (is_file(file)) return;
  std::error_code ignored;
  throw ConfigError(
      problem(fs::is_directory(path, ignored) ? "there is no config.json in it"
                                              : "there is no such directory")
          .at(path)
          .must("be the directory of a Hugging Face model")
          .remedy("config.json, *.safetensors and the tokenizer stand in one; `tptrain "
                  "fetch OWNER/NAME` brings one from the hub."));
}

DecoderConfig decoder_config(const config::ModelConfig& model, int64_t tokenizer_vocab_size) {
  std::vector<Problem> problems;
  const DecoderConfig config =
      model.architecture
          ? config_of_architecture(*model.architecture, tokenizer_vocab_size, problems)
          : config_of_directory(model.path);
  // An id beyond the table would read nothing and train nothing, without an error. (The other way
  // round is usual: tables are padded.) A table that is made here is to be made large enough; that
  // of a finished model is what it is, and a text that gives such an id is refused when it comes.
  if (model.architecture && config.vocab_size > 0 && config.vocab_size < tokenizer_vocab_size) {
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

  family->set_form(config);
  family->read(keys, config);
  keys.refuse_unless("quantization_config", nullptr,
                     "Quantized weights cannot be trained; use the unquantized model.");
  check_shape(config, config.head_dim > 0, name, problems);
  if (!problems.empty()) throw ConfigError(problems);
  return config;
}

std::string to_json(const DecoderConfig& config) {
  const Family* family = find_family(config.model_type);
  if (!family) throw InternalError(unknown_family(config.model_type));
  nlohmann::ordered_json out;
  out["architectures"] = {std::string(family->architecture)};
  out["model_type"] = config.model_type;
  family->write(config, out);
  return out.dump(2) + "\n";
}

}  // namespace tptrain::model
