// What the list of keys writes: resolved_config.yaml, the JSON Schema, docs/configuration.md; and
// the list itself.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>

#include "config/keys.h"
#include "config_test.h"

namespace tptrain::testing {
namespace {

TEST_CASE("to_yaml writes every value, defaults included, one key a line") {
  CHECK(config::to_yaml(parse(kMinimal)) == R"(run_dir: runs/a
model:
  path: models/tiny
  freeze: []
parallel:
  tp_size: 1
  dp_size: 0
  zero_stage: 1
  sequence_parallel: true
  recompute: none
  reduce_dtype: fp32
  tp_overlap: auto
  dp_overlap: auto
data:
  train: [corpus.txt]
  eval: []
  text_key: text
  max_bad_fraction: 0.0
  train_on: assistant
  train_on_end: true
  trust_times: false
  packing: stream
  document_mask: false
  special_as_text: false
  shuffle: true
train:
  seq_length: 512
  micro_batch_size: 1
  max_steps: 10
  seed: 42
  device: auto
  cpu_threads: 0
  dtype: fp32
  gradient_dtype: fp32
  fp8: "off"
  fp8_bf16_first_layers: 0
  fp8_bf16_last_layers: 0
  fp8_all_gather: "off"
  attention_dropout: 0.0
  residual_dropout: 0.0
  z_loss: 0.0
  nonfinite: stop
  deterministic: false
  cuda_graphs: auto
  hang_timeout_s: 600
  guard:
    action: none
    window: 100
    threshold: 10.0
    limit: 10
optimizer:
  type: adamw
  learning_rate: 1e-5
  betas: [0.9, 0.95]
  eps: 1e-8
  weight_decay: 0.01
  max_grad_norm: 1.0
  groups: []
  moments_dtype: fp32
  master_dtype: fp32
  muon:
    momentum: 0.95
    nesterov: true
    steps: 5
scheduler:
  type: constant
  warmup_steps: 0
  decay_steps: 0
  min_lr: 0.0
checkpoint:
  save_steps: 0
  save_epochs: 0
  keep: 2
  resume: auto
  on_failure: go_on
  async: true
  allow_changes: []
  keep_every: 0
  keep_best: none
eval:
  every_steps: 0
  every_epochs: 0
  max_batches: 20
  patience: 0
logging:
  every_steps: 1
  audit_steps: 100
  tensorboard: true
  fp8_counts: false
)");
}

TEST_CASE("to_yaml parses back to an equal config") {
  CHECK(parse(config::to_yaml(parse(kMinimal))) == parse(kMinimal));

  const std::vector<std::string> texts = {"a",     "null",        "a~",    "true",
                                          "12",    "1e-3",        "a: b",  "#x",
                                          "*.txt", "it's \"q\"",  " lead", "[x]",
                                          "- a",   "back\\slash", "a,b",   "\xc3\xa9/\xe6\x97\xa5"};
  std::mt19937_64 random(20240611);
  const auto integer = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  const auto real = [&] {  // over many magnitudes
    return std::ldexp(std::uniform_real_distribution<double>(0.5, 1.0)(random),
                      static_cast<int>(integer(-300, 100)));
  };
  const auto text = [&] { return texts[static_cast<size_t>(integer(0, texts.size() - 1))]; };
  for (int round = 0; round < 300; ++round) {
    config::RunConfig config;
    const bool with_path = integer(0, 1) == 0;
    if (!with_path) config.model.architecture.emplace();
    for (const config::Key& key : config::keys()) {
      if (key.section() == "model.architecture" && with_path) continue;
      if (key.path == "model.path" && !with_path) continue;
      if (key.path == "train.grad_accum_steps" ||
          (key.presence == config::Presence::absent && key.path != "model.path" &&
           key.path != "train.max_steps" && integer(0, 1)) ||
          key.path == "train.epochs") {
        continue;
      }
      const int64_t low = key.limits.at_least.value_or(0);
      const int64_t high = key.limits.at_most.value_or(1000);
      switch (key.type) {
        case config::Type::text:
        case config::Type::path: {
          const auto& from = key.allowed.empty() ? texts : key.allowed;
          key.set(config, from[static_cast<size_t>(integer(0, from.size() - 1))]);
          break;
        }
        case config::Type::integer:
          key.set(config, integer(low, high));
          break;
        case config::Type::seed:
          key.set(config, static_cast<uint64_t>(random()));
          break;
        case config::Type::real:
          key.set(config, key.limits.below     ? real() * 1e-31
                          : key.limits.at_most ? std::fmod(real(), *key.limits.at_most)
                                               : real());
          break;
        case config::Type::boolean:
          key.set(config, integer(0, 1) == 0);
          break;
        case config::Type::betas:
          key.set(config, std::vector<double>{0.0, std::nextafter(1.0, 0.0) / integer(1, 9)});
          break;
        case config::Type::words: {
          std::vector<std::string> list;
          const auto& from = key.allowed.empty() ? texts : key.allowed;
          for (int64_t n = integer(0, 3); n > 0; --n) {
            list.push_back(from[static_cast<size_t>(integer(0, from.size() - 1))]);
          }
          key.set(config, list);
          break;
        }
        case config::Type::sources: {
          std::vector<config::DataSource> list;
          for (int64_t n = integer(1, 3); n > 0; --n) {
            list.push_back(
                {.path = text() + std::to_string(n),
                 .name = integer(0, 1) ? "" : text() + std::to_string(n),
                 .format = integer(0, 1) ? std::nullopt : std::optional(config::DataFormat::jsonl),
                 .subset = integer(0, 1) ? "" : "5%",
                 .repeat = integer(1, 2),
                 .columns = integer(0, 1) ? config::Columns()
                                          : config::Columns{{"messages", text()}, {"role", "r"}},
                 .roles = integer(0, 1) ? config::Roles()
                                        : config::Roles{{"assistant", {text(), text()}}}});
          }
          if (integer(0, 1)) {
            for (config::DataSource& source : list) {
              source.weight = real();
              source.repeat = 1;
            }
          }
          key.set(config, list);
          break;
        }
        case config::Type::source_sets: {
          std::vector<config::DataSource> list;
          const bool sets = integer(0, 1) == 0;
          for (int64_t n = integer(1, 3); n > 0; --n) {
            list.push_back({.path = text(),
                            .subset = integer(0, 1) ? "" : "1000",
                            .set = sets ? texts[static_cast<size_t>(n / 2)] : ""});
          }
          key.set(config, list);
          break;
        }
        case config::Type::groups: {
          std::vector<config::ParameterGroup> list;
          for (int64_t n = integer(0, 3); n > 0; --n) {
            list.push_back({.match = texts[static_cast<size_t>(integer(0, texts.size() - 1))],
                            .weight_decay = integer(0, 1) ? std::optional(real()) : std::nullopt,
                            .learning_rate_scale = integer(0, 1) ? real() : 1.0});
          }
          key.set(config, list);
          break;
        }
      }
    }
    config.train.max_time = integer(0, 1) ? "" : "1h30m";
    if (integer(0, 1)) config.adapter.reset();
    // What one key asks of another.
    config.train.micro_batch_size = 1;
    if (!with_path && config.model.init == config::Init::pretrained) {
      config.model.init = config::Init::random;
    }
    if (config.parallel.zero_stage > 1) {
      config.parallel.reduce_gradients = config::ReduceGradients::per_micro_batch;
    }
    if (config.train.dtype == config::Dtype::fp32)
      config.optimizer.master_dtype = config::Dtype::fp32;
    if (config.train.dtype == config::Dtype::fp32) config.train.fp8 = config::Fp8::off;
    if (config.train.fp8 == config::Fp8::off) config.train.fp8_all_gather = config::Fp8::off;
    if (config.train.dtype == config::Dtype::fp32 ||
        config.optimizer.type == config::OptimizerType::muon || config.parallel.zero_stage == 0)
      config.train.gradient_dtype = config::Dtype::fp32;
    if (config.data.document_mask)
      config.train.attention_dropout = config.train.residual_dropout = 0.0;
    if (config.adapter) {
      if (config.adapter->targets.empty()) config.adapter->targets = {"q_proj"};
      if (config.train.dtype == config::Dtype::fp32 &&
          config.adapter->base_dtype == config::BaseDtype::bf16)
        config.adapter->base_dtype = config::BaseDtype::nf4;
      if (config.data.document_mask) config.adapter->dropout = 0.0;
      config.train.fp8 = config::Fp8::off;
      config.train.fp8_all_gather = config::Fp8::off;
      if (config.optimizer.type == config::OptimizerType::muon)
        config.optimizer.type = config::OptimizerType::lion;
    }
    config.scheduler.decay_steps =
        config.scheduler.type == config::Schedule::wsd ? integer(0, config.train.max_steps) : 0;
    config::CheckpointConfig& checkpoint = config.checkpoint;
    checkpoint.keep_every = integer(0, 1) ? checkpoint.save_steps : 0;
    config.data.eval_share = integer(0, 1) ? "" : "0.5%";
    if (!config.data.eval_share.empty()) config.data.eval.clear();
    if (!config.data.evaluates()) checkpoint.keep_best = config::KeepBest::none;
    if (!config.data.evaluates()) config.eval.patience = 0;
    if (config.data.columns.contains("text")) config.data.text_key = "text";
    for (auto& [role, words] : config.data.roles) {
      for (std::string& word : words) word = role + word;  // each word is of one role
    }
    config.scheduler.min_lr = std::min(config.scheduler.min_lr, config.optimizer.learning_rate);
    if (checkpoint.resumes() == config::Resume::path) checkpoint.init_from = "";
    if (!config.model.adapter.empty()) checkpoint.init_from = "";
    const std::string yaml = config::to_yaml(config);
    INFO(yaml);
    REQUIRE(parse(yaml) == config);
  }
}

TEST_CASE("a list of groups is one line, a weight_decay that was left out stays out") {
  const std::string yaml = config::to_yaml(
      parse(kMinimal, {"optimizer.groups=[{match: \"*.bias\"}, {match: lm_head.weight, "
                       "weight_decay: 0, learning_rate_scale: 0.5}]"}));
  check_contains(yaml,
                 "\n  groups: [{match: \"*.bias\", learning_rate_scale: 1.0}, {match: "
                 "lm_head.weight, weight_decay: 0.0, learning_rate_scale: 0.5}]\n");
}

TEST_CASE("sources are one line, plain where they are only a path") {
  const std::string yaml = config::to_yaml(
      parse(kMinimal, {"data.train=[{path: a.txt, weight: 0.5}, {path: b, weight: 2, name: c}]",
                       "data.eval={wiki: [w], chat: [{path: d, subset: 1000}, e]}"}));
  check_contains(yaml,
                 "\n  train: [{path: a.txt, weight: 0.5}, {path: b, name: c, weight: 2.0}]\n");
  check_contains(yaml, "\n  eval: {wiki: [w], chat: [{path: d, subset: \"1000\"}, e]}\n");
  const std::string named = config::to_yaml(
      parse(kMinimal, {"data.columns={messages: dialog}", "data.roles.user=visitor",
                       "data.train=[{path: a, columns: {text: b}, roles: {tool: c}}]"}));
  check_contains(named,
                 "  train: [{path: a, columns: {text: b}, roles: {tool: [c]}}]\n  eval: []\n");
  check_contains(named, "\n  roles:\n    user: [visitor]\n");
}

TEST_CASE("the list of keys has a sentence, a section and one entry for every key") {
  std::set<std::string> paths;
  for (const config::Key& key : config::keys()) {
    INFO(key.path);
    CHECK(paths.insert(key.path).second);
    CHECK(config::find_section(key.section()) != nullptr);
    REQUIRE(!key.doc.empty());
    CHECK(key.doc.back() == '.');
    CHECK((key.presence != config::Presence::required || !key.hint.empty()));
    // The default itself is within the bounds, so that resolved_config.yaml can be read.
    if (const auto value = config::default_value(key)) {
      config::RunConfig config = parse(kMinimal);
      if (key.section() == "model.architecture") continue;
      key.set(config, *value);
      CHECK(config::check_sections(config, {}).empty());
    }
  }
}

TEST_CASE("the JSON Schema holds every key with its type, bounds and default") {
  const auto schema = nlohmann::json::parse(config::json_schema());
  CHECK(schema["$schema"] == "https://json-schema.org/draft/2020-12/schema");
  CHECK(schema["additionalProperties"] == false);
  for (const config::Key& key : config::keys()) {
    INFO(key.path);
    std::istringstream parts(key.path);
    nlohmann::json at = schema;
    for (std::string part; std::getline(parts, part, '.');) {
      REQUIRE(at["properties"].contains(part));
      at = at["properties"][part];
      CHECK((at["type"] != "object" || at["additionalProperties"] == false));
    }
    CHECK(at.contains("type"));
    CHECK(at["description"].get<std::string>().rfind(key.doc, 0) == 0);
    CHECK(at.contains("default") == (key.presence == config::Presence::defaulted));
  }
  const auto& properties = schema["properties"];
  CHECK(schema["required"] == nlohmann::json::parse(R"(["run_dir", "model", "data", "train"])"));
  CHECK(properties["parallel"]["properties"]["zero_stage"]["maximum"] == 3);
  CHECK(properties["parallel"]["properties"]["tp_size"]["minimum"] == 1);
  CHECK(properties["optimizer"]["properties"]["eps"]["exclusiveMinimum"] == 0);
  CHECK(properties["optimizer"]["properties"]["betas"]["default"] ==
        nlohmann::json::parse("[0.9, 0.95]"));
  CHECK(properties["scheduler"]["properties"]["type"]["enum"] ==
        nlohmann::json::parse(R"(["constant", "linear", "cosine", "wsd"])"));
  CHECK(properties["train"]["properties"]["attention_dropout"]["exclusiveMaximum"] == 1);
  CHECK(properties["optimizer"]["properties"]["groups"]["default"] == nlohmann::json::array());
  CHECK(properties["optimizer"]["properties"]["groups"]["items"] == nlohmann::json::parse(R"({
    "type": "object",
    "properties": {"match": {"type": "string", "minLength": 1},
                   "weight_decay": {"type": "number", "minimum": 0},
                   "learning_rate_scale": {"type": "number", "minimum": 0, "default": 1.0}},
    "required": ["match"],
    "additionalProperties": false})"));
  std::string column_schemas;
  for (const char* name : config::kColumnNames)
    column_schemas += std::string(column_schemas.empty() ? "" : ", ") + "\"" + name +
                      R"(": {"type": "string", "minLength": 1})";
  std::string role_schemas;
  for (const char* name : config::kRoleNames)
    role_schemas += std::string(role_schemas.empty() ? "" : ", ") + "\"" + name +
                    R"(": {"anyOf": [{"type": "string", "minLength": 1},
                           {"type": "array", "items": {"type": "string", "minLength": 1}}]})";
  CHECK(properties["data"]["properties"]["train"]["items"] ==
        nlohmann::json::parse(R"({"oneOf": [
    {"type": "string", "minLength": 1},
    {"type": "object", "properties": {"path": {"type": "string", "minLength": 1},
      "name": {"type": "string", "minLength": 1}, "weight": {"type": "number", "exclusiveMinimum": 0},
      "format": {"enum": ["text", "jsonl", "parquet", "indexed"]}, "subset": {"type": ["string", "integer"]},
      "repeat": {"type": "integer", "minimum": 1},
      "columns": {"type": "object", "additionalProperties": false, "properties": {)" +
                              column_schemas + R"(}},
      "roles": {"type": "object", "additionalProperties": false, "properties": {)" +
                              role_schemas + R"(}}},
     "required": ["path"], "additionalProperties": false}]})"));
  CHECK(properties["data"]["properties"]["eval"]["type"] ==
        nlohmann::json::parse(R"(["array", "object"])"));
  CHECK(properties["train"]["oneOf"] ==
        nlohmann::json::parse(R"([{"required": ["max_steps"]}, {"required": ["epochs"]}])"));
  CHECK(properties["train"]["not"]["required"] ==
        nlohmann::json::parse(R"(["global_batch_size", "grad_accum_steps"])"));
  CHECK(properties["model"]["oneOf"] ==
        nlohmann::json::parse(R"([{"required": ["path"]}, {"required": ["architecture"]}])"));
}

TEST_CASE("docs/configuration.md is what the list of keys says") {
  std::ifstream file(TPTRAIN_SOURCE_DIR "/docs/configuration.md", std::ios::binary);
  std::stringstream committed;
  committed << file.rdbuf();
  INFO(
      "docs/configuration.md is out of date. Regenerate it: tptrain schema --markdown > "
      "docs/configuration.md");
  CHECK((committed.str() == config::markdown_reference()));
}

}  // namespace
}  // namespace tptrain::testing
