// adapter_config.json: what PEFT writes is read, what is not built is refused by name.
#include "adapters/peft_config.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "support/catch.h"
#include "support/temp_dir.h"

namespace tptrain::testing {
namespace {

using adapters::parse_peft_config;
using adapters::PeftConfig;
using Json = nlohmann::json;

/// The least that PEFT reads.
Json least() {
  return {{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 8}, {"target_modules", {"q_proj"}}};
}

PeftConfig parsed(const Json& json) { return parse_peft_config(json.dump(), "a.json"); }

std::string refusal(const std::string& key, const Json& value) {
  Json json = least();
  json[key] = value;
  return message_of<DataError>([&] { parsed(json); });
}

TEST_CASE("what PEFT has written is read") {
  for (const char* name : {"llama", "qwen2", "qwen3", "gpt2"}) {
    const std::string path =
        std::string(TPTRAIN_GOLDEN) + "/adapters/" + name + "/adapter_config.json";
    const PeftConfig config = parse_peft_config(read_file(path, 1 << 20), path);
    CAPTURE(name);
    CHECK(config.rank == (std::string(name) == "qwen2" ? 3 : 4));
    CHECK_FALSE(config.targets.empty());
    CHECK(config.rslora == (std::string(name) == "qwen2"));
    CHECK(config.keeps_tie == (std::string(name) == "qwen3"));
  }
}

TEST_CASE("keys that are not there have PEFT's defaults, and the scale is PEFT's") {
  Json json = {{"peft_type", "LORA"}, {"target_modules", "all-linear"}};
  const PeftConfig config = parsed(json);
  CHECK(config.rank == 8);
  CHECK(config.alpha == 8);
  CHECK(config.dropout == 0);
  CHECK(config.target_pattern == "all-linear");
  CHECK(config.scale() == 1.0);
  json["use_rslora"] = true;
  json["r"] = 16;
  CHECK(parsed(json).scale() == 2.0);
}

TEST_CASE("what is written is read as the same") {
  const PeftConfig config = {.rank = 3,
                             .alpha = 2.5,
                             .dropout = 0.05,
                             .rslora = true,
                             .targets = {"k_proj", "q_proj"},
                             .modules_to_save = {"embed_tokens", "lm_head"},
                             .keeps_tie = true,
                             .base_model = "/models/base"};
  const std::string text = adapters::peft_config_text(config, /*stored_transposed=*/true);
  const PeftConfig again = parse_peft_config(text, "a.json");
  CHECK(again.rank == config.rank);
  CHECK(again.alpha == config.alpha);
  CHECK(again.dropout == config.dropout);
  CHECK(again.rslora == config.rslora);
  CHECK(again.targets == config.targets);
  CHECK(again.modules_to_save == config.modules_to_save);
  CHECK(again.keeps_tie == config.keeps_tie);
  CHECK(again.base_model == config.base_model);
  const Json json = Json::parse(text);
  CHECK(json.at("fan_in_fan_out") == true);
  CHECK(json.at("inference_mode") == true);
  CHECK(json.at("task_type") == "CAUSAL_LM");
}

TEST_CASE("what is not built is refused by its name, whatever version of PEFT wrote it") {
  struct Case {
    const char* key;
    Json value;
    const char* says;
  };
  const std::vector<Case> cases = {
      {"peft_type", "VERA", "peft_type is \"VERA\": only LORA is built"},
      {"peft_type", "IA3", "peft_type is \"IA3\": only LORA is built"},
      {"peft_type", nullptr, "peft_type is missing"},
      {"task_type", "SEQ_CLS", "task_type is \"SEQ_CLS\": only CAUSAL_LM is built"},
      {"use_dora", true, "use_dora is true: DoRA is not built"},
      {"bias", "all", "bias is \"all\": only \"none\" is built"},
      {"lora_bias", true, "lora_bias is true: biases of adapters is not built"},
      {"layers_to_transform", {0, 1}, "layers_to_transform is [0,1]"},
      {"rank_pattern", {{"q_proj", 8}}, "rank_pattern is {\"q_proj\":8}"},
      {"alpha_pattern", {{"q_proj", 8}}, "alpha_pattern is {\"q_proj\":8}"},
      {"exclude_modules", {"k_proj"}, "exclude_modules is"},
      {"trainable_token_indices", {1}, "trainable_token_indices is [1]"},
      {"target_parameters", {"experts"}, "target_parameters is"},
      {"init_lora_weights", "pissa", "init_lora_weights is \"pissa\": it changes the base's"},
      {"loftq_config", {{"loftq_bits", 4}}, "LoftQ"},
      {"of_the_future", 3, "of_the_future is 3: the key is unknown"},
      {"r", 0, "r is 0: it must be a whole number of at least 1"},
      {"r", 2.5, "r is 2.5"},
      {"lora_alpha", -1, "lora_alpha is -1: it must be above 0"},
      {"lora_dropout", 1, "lora_dropout is 1: it must be at least 0 and below 1"},
      {"target_modules", Json::array(), "target_modules names no module"},
      {"target_modules", 5, "target_modules is 5: it must be a list of names"},
      {"modules_to_save", {1}, "modules_to_save is [1]: it must be a list of names"},
      {"use_rslora", 1, "use_rslora is 1: it must be true or false"}};
  for (const Case& c : cases) {
    const std::string message = refusal(c.key, c.value);
    INFO(message);
    CHECK(message.find(c.says) != std::string::npos);
    CHECK(message.find("a.json: ") != std::string::npos);
  }
  Json json = least();
  json["use_dora"] = true;
  json["bias"] = "lora_only";
  const std::string both = message_of<DataError>([&] { parsed(json); });
  CHECK(both.find("2 keys are not what this program") != std::string::npos);
}

TEST_CASE("keys that ask for nothing are no reason to refuse") {
  Json json = least();
  json["of_the_future"] = nullptr;
  json["switch_of_the_future"] = false;
  json["list_of_the_future"] = Json::array();
  json["init_lora_weights"] = "eva";
  json["eva_config"] = {{"rho", 2.0}};
  json["peft_version"] = "9.9";
  CHECK(parsed(json).rank == 4);
  CHECK(message_of<DataError>([] {
          parse_peft_config("[1]", "a.json");
        }).find("it is no JSON object") != std::string::npos);
}

}  // namespace
}  // namespace tptrain::testing
