#include "adapters/peft_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/python_json.h"
#include "base/text.h"
#include "checkpoint/huggingface_files.h"
#include "formats/strict_json.h"

namespace tptrain::adapters {

namespace {

using Json = nlohmann::json;

// Of all that PEFT knows, what this file says about itself alone.
constexpr std::array kWithoutMeaning = {"auto_mapping",   "revision",         "peft_version",
                                        "inference_mode", "fan_in_fan_out",   "megatron_core",
                                        "task_type",      "qalora_group_size"};

// What PEFT does before it trains or loads, that leaves the base's weights as they are.
constexpr std::array kPlainInitials = {"gaussian", "eva", "orthogonal"};

struct Refused {
  const char* key;
  const char* is;
};
// Features of PEFT by the key that asks for them; all others that are unknown are refused likewise.
constexpr Refused kRefused[] = {
    {"use_dora", "DoRA"},
    {"lora_bias", "biases of adapters"},
    {"layers_to_transform", "adapters of some layers by number"},
    {"layers_pattern", "adapters of some layers by pattern"},
    {"rank_pattern", "ranks that differ between modules"},
    {"alpha_pattern", "alphas that differ between modules"},
    {"exclude_modules", "modules left out of the targets"},
    {"trainable_token_indices", "training of single tokens"},
    {"layer_replication", "layers that are used several times"},
    {"target_parameters", "adapters of parameters that are no linear's"},
    {"loftq_config", "LoftQ, which changes the base's weights"},
    {"corda_config", "CorDA, which changes the base's weights"},
    {"lora_ga_config", "LoRA-GA, which changes the base's weights"},
    {"megatron_config", "Megatron's layers"},
    {"use_qalora", "QALoRA"},
    {"use_bdlora", "block-diagonal LoRA"},
    {"alora_invocation_tokens", "activated LoRA"},
    {"arrow_config", "Arrow's routing"},
    {"kasa_config", "KaSA"},
    {"velora_config", "VeLoRA"},
    {"monteclora_config", "MonteCLoRA"},
};

bool is_empty(const Json& value) {
  return value.is_null() || value == false ||
         ((value.is_object() || value.is_array() || value.is_string()) &&
          (value.empty() || value == ""));
}

class Reader {
 public:
  explicit Reader(const Json& root) : root_(root) {}

  PeftConfig read() {
    type();
    PeftConfig config;
    config.rank = static_cast<int64_t>(number(
        "r", 8, [](double v) { return v >= 1 && v <= 65536 && v == std::floor(v); },
        "a whole number of at least 1"));
    config.alpha = number(
        "lora_alpha", 8, [](double v) { return v > 0; }, "above 0");
    config.dropout = number(
        "lora_dropout", 0, [](double v) { return v >= 0 && v < 1; }, "at least 0 and below 1");
    config.rslora = flag("use_rslora");
    config.keeps_tie = flag("ensure_weight_tying");
    config.modules_to_save = names("modules_to_save");
    config.base_model = text("base_model_name_or_path");
    targets(config);
    bias();
    initials();
    refuse_others();
    return config;
  }
  const std::vector<std::string>& wrong() const { return wrong_; }

 private:
  const Json* find(const char* key) {
    read_.emplace_back(key);
    const auto found = root_.find(key);
    return found == root_.end() || found->is_null() ? nullptr : &*found;
  }
  void complain(const std::string& key, const Json& value, const std::string& what) {
    std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
    wrong_.push_back(cat(key, " is ", shown, ": ", what));
  }
  void type() {
    const Json* found = find("peft_type");
    if (found == nullptr) {
      wrong_.emplace_back("peft_type is missing: it must be \"LORA\"");
    } else if (*found != "LORA") {
      complain("peft_type", *found, "only LORA is built");
    }
    if (const Json* task = find("task_type"); task != nullptr && *task != "CAUSAL_LM") {
      complain("task_type", *task, "only CAUSAL_LM is built");
    }
  }
  template <typename Fits>
  double number(const char* key, double absent, const Fits& fits, const char* must) {
    const Json* found = find(key);
    if (found == nullptr) return absent;
    if (found->is_number() && fits(found->get<double>())) return found->get<double>();
    complain(key, *found, cat("it must be ", must));
    return absent;
  }
  bool flag(const char* key) {
    const Json* found = find(key);
    if (found == nullptr) return false;
    if (found->is_boolean()) return found->get<bool>();
    complain(key, *found, "it must be true or false");
    return false;
  }
  std::string text(const char* key) {
    const Json* found = find(key);
    if (found == nullptr) return "";
    if (found->is_string()) return found->get<std::string>();
    complain(key, *found, "it must be a text");
    return "";
  }
  std::vector<std::string> names(const char* key) {
    const Json* found = find(key);
    if (found == nullptr) return {};
    std::vector<std::string> list;
    const bool fits =
        found->is_array() && std::all_of(found->begin(), found->end(), [](const Json& name) {
          return name.is_string() && !name.get_ref<const std::string&>().empty();
        });
    if (!fits) {
      complain(key, *found, "it must be a list of names");
      return {};
    }
    for (const Json& name : *found) list.push_back(name.get<std::string>());
    return list;
  }
  void targets(PeftConfig& config) {
    const Json* found = find("target_modules");
    if (found != nullptr && found->is_string()) {
      config.target_pattern = found->get<std::string>();
    } else {
      config.targets = names("target_modules");
    }
    if (config.targets.empty() && config.target_pattern.empty()) {
      wrong_.emplace_back("target_modules names no module");
    }
  }
  void bias() {
    const Json* found = find("bias");
    if (found == nullptr || *found == "none") return;
    complain("bias", *found, "only \"none\" is built");
  }
  void initials() {
    const Json* found = find("init_lora_weights");
    if (found == nullptr || found->is_boolean()) return;
    if (std::any_of(kPlainInitials.begin(), kPlainInitials.end(),
                    [&](const char* plain) { return *found == plain; })) {
      find("eva_config");  // says how A began, and nothing else
      return;
    }
    complain("init_lora_weights", *found,
             "it changes the base's weights; PEFT converts such an adapter with "
             "save_pretrained(path_initial_model_for_weight_conversion=...)");
  }
  void refuse_others() {
    for (const char* key : kWithoutMeaning) read_.emplace_back(key);
    for (const auto& [key, value] : root_.items()) {
      if (std::find(read_.begin(), read_.end(), key) != read_.end() || is_empty(value)) continue;
      const auto* known = std::find_if(std::begin(kRefused), std::end(kRefused),
                                       [&key = key](const Refused& r) { return key == r.key; });
      complain(key.substr(0, 60), value,
               known == std::end(kRefused) ? std::string("the key is unknown")
                                           : cat(known->is, " is not built"));
    }
  }

  const Json& root_;
  std::vector<std::string> read_;
  std::vector<std::string> wrong_;
};

}  // namespace

double PeftConfig::scale() const {
  const auto r = static_cast<double>(rank);
  return alpha / (rslora ? std::sqrt(r) : r);
}

PeftConfig parse_peft_config(std::string_view text, const std::string& where) {
  const Json root = formats::parse_strict_json(quote_bare_numbers(text), where);
  if (!root.is_object()) {
    throw DataError(
        problem("it is no JSON object").at(where).must("be PEFT's adapter_config.json"));
  }
  Reader reader(root);
  PeftConfig config = reader.read();
  if (reader.wrong().empty()) return config;
  throw DataError(
      problem(cat(reader.wrong().size(), reader.wrong().size() == 1 ? " key is" : " keys are",
                  " not what this program trains and loads"))
          .at(where)
          .must("describe a LoRA adapter of linears (docs/lora.md)")
          .remedy(checkpoint::capped_list(reader.wrong())));
}

std::string peft_config_text(const PeftConfig& config, bool stored_transposed) {
  nlohmann::ordered_json out = {
      {"task_type", "CAUSAL_LM"},
      {"peft_type", "LORA"},
      {"auto_mapping", nullptr},
      {"base_model_name_or_path", nullptr},
      {"revision", nullptr},
      {"inference_mode", true},
      {"r", config.rank},
      {"target_modules", config.targets},
      {"exclude_modules", nullptr},
      {"lora_alpha", config.alpha},
      {"lora_dropout", config.dropout},
      {"fan_in_fan_out", stored_transposed},
      {"bias", "none"},
      {"use_rslora", config.rslora},
      {"modules_to_save", nullptr},
      {"init_lora_weights", true},
      {"layers_to_transform", nullptr},
      {"layers_pattern", nullptr},
      {"rank_pattern", nlohmann::json::object()},
      {"alpha_pattern", nlohmann::json::object()},
      {"megatron_config", nullptr},
      {"megatron_core", "megatron.core"},
      {"loftq_config", nlohmann::json::object()},
      {"use_dora", false},
      {"layer_replication", nullptr},
      {"lora_bias", false},
  };
  if (!config.target_pattern.empty()) out["target_modules"] = config.target_pattern;
  if (!config.base_model.empty()) out["base_model_name_or_path"] = config.base_model;
  if (!config.modules_to_save.empty()) out["modules_to_save"] = config.modules_to_save;
  // PEFT writes whole alphas as integers.
  if (config.alpha == std::floor(config.alpha)) {
    out["lora_alpha"] = static_cast<int64_t>(config.alpha);
  }
  // Older versions of PEFT know no such key, and refuse what they do not know.
  if (config.keeps_tie) out["ensure_weight_tying"] = true;
  return out.dump(2) + "\n";
}

}  // namespace tptrain::adapters
