#include "config/keys.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "base/text.h"

namespace tptrain::config {
namespace {

// Largest size a key accepts: products of two sizes stay within int64_t.
constexpr int64_t kLargest = 2147483647;

bool is_empty(const Value& value) {
  return std::visit(
      [](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_arithmetic_v<T>) {
          return v == T{};
        } else {
          return v.empty();
        }
      },
      value);
}

// The accessors of a member of a section: bind(key, &RunConfig::parallel,
// &ParallelConfig::tp_size).
template <typename SectionStruct, typename Member>
Key bind(Key key, SectionStruct RunConfig::*section, Member SectionStruct::*member) {
  const bool may_be_absent = key.presence == Presence::absent;
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    Value value = config.*section.*member;
    if (may_be_absent && is_empty(value)) return std::nullopt;
    return value;
  };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*section.*member = std::get<Member>(value);
  };
  return key;
}

// The same for a member of model.architecture, which setting a key brings into being.
template <typename Member>
Key bind(Key key, Member ArchitectureConfig::*member) {
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    if (!config.model.architecture) return std::nullopt;
    return Value(*config.model.architecture.*member);
  };
  key.set = [=](RunConfig& config, const Value& value) {
    if (!config.model.architecture) config.model.architecture.emplace();
    *config.model.architecture.*member = std::get<Member>(value);
  };
  return key;
}

Key bind(Key key, std::optional<bool> ArchitectureConfig::*member) {
  key.get = [=](const RunConfig& config) -> std::optional<Value> {
    if (!config.model.architecture) return std::nullopt;
    const std::optional<bool>& value = *config.model.architecture.*member;
    return value ? std::optional<Value>(*value) : std::nullopt;
  };
  key.set = [=](RunConfig& config, const Value& value) {
    if (!config.model.architecture) config.model.architecture.emplace();
    *config.model.architecture.*member = std::get<bool>(value);
  };
  return key;
}

Key bind(Key key, std::string RunConfig::*member) {
  key.get = [=](const RunConfig& config) { return std::optional<Value>(config.*member); };
  key.set = [=](RunConfig& config, const Value& value) {
    config.*member = std::get<std::string>(value);
  };
  return key;
}

constexpr Limits kPositive = {.at_least = 1, .at_most = kLargest};
constexpr Limits kNotNegative = {.at_least = 0, .at_most = kLargest};

std::vector<Key> model_keys() {
  using A = ArchitectureConfig;
  const std::string in = "model.architecture.";
  return {
      bind({.path = "model.path",
            .presence = Presence::absent,
            .doc =
                "Directory of a model in Hugging Face layout, for the shape in its `config.json`; "
                "its weights are not read yet, so training asks for `init: random` beside it."},
           &RunConfig::model, &ModelConfig::path),
      bind({.path = "model.init",
            .presence = Presence::absent,
            .allowed = {"random"},
            .doc = "What the values begin with: `random`, from train.seed. Required with `path`."},
           &RunConfig::model, &ModelConfig::init),
      bind({.path = in + "model_type",
            .allowed = {"llama", "qwen2"},
            .doc = "Family of the decoder."},
           &A::model_type),
      bind({.path = in + "vocab_size",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Rows of the embedding table.",
            .hint = "the tokenizer's size"},
           &A::vocab_size),
      bind({.path = in + "hidden_size",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Width of the residual stream.",
            .hint = "256"},
           &A::hidden_size),
      bind({.path = in + "intermediate_size",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Width of the feed-forward layers.",
            .hint = "688"},
           &A::intermediate_size),
      bind({.path = in + "num_hidden_layers",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Number of decoder layers.",
            .hint = "4"},
           &A::num_hidden_layers),
      bind({.path = in + "num_attention_heads",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Number of query heads.",
            .hint = "8"},
           &A::num_attention_heads),
      bind({.path = in + "num_key_value_heads",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Number of key and value heads (grouped-query attention).",
            .hint = "num_attention_heads"},
           &A::num_key_value_heads),
      bind({.path = in + "head_dim",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Width of one head.",
            .hint = "hidden_size / num_attention_heads"},
           &A::head_dim),
      bind({.path = in + "rms_norm_eps",
            .type = Type::real,
            .limits = {.above = 0},
            .doc = "Epsilon of the RMS norms."},
           &A::rms_norm_eps),
      bind({.path = in + "rope_theta",
            .type = Type::real,
            .limits = {.above = 0},
            .doc = "Base of the rotary position embedding."},
           &A::rope_theta),
      bind({.path = in + "tie_word_embeddings",
            .type = Type::boolean,
            .doc = "The output head shares the embedding's weights."},
           &A::tie_word_embeddings),
      bind({.path = in + "attention_bias",
            .type = Type::boolean,
            .presence = Presence::absent,
            .doc = "The query, key and value projections have a bias.",
            .hint = "true for qwen2, false for llama"},
           &A::attention_bias),
      bind({.path = in + "initializer_range",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Standard deviation of the initial weights."},
           &A::initializer_range),
  };
}

std::vector<Key> layout_and_data_keys() {
  return {
      bind({.path = "parallel.tp_size",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Ranks that share one copy of the model (tensor parallel)."},
           &RunConfig::parallel, &ParallelConfig::tp_size),
      bind({.path = "parallel.dp_size",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Copies of the model, each with its own part of the batch (data parallel).",
            .hint = "number of ranks / tp_size"},
           &RunConfig::parallel, &ParallelConfig::dp_size),
      bind({.path = "parallel.zero_stage",
            .type = Type::integer,
            .limits = {.at_least = 0, .at_most = 1},
            .doc = "ZeRO stage: 0 keeps the whole optimizer state on every dp rank, 1 a 1/dp_size "
                   "share; the training is bitwise the same."},
           &RunConfig::parallel, &ParallelConfig::zero_stage),
      bind({.path = "data.train",
            .type = Type::sources,
            .presence = Presence::required,
            .doc = "Files to train on: a list of globs (`*`, `?`, `[..]`, `**`), each as a plain "
                   "text or as `{path: GLOB}`.",
            .hint = "[\"corpus/*.txt\"]"},
           &RunConfig::data, &DataConfig::train),
      bind({.path = "data.eval",
            .type = Type::sources,
            .doc = "Files to evaluate on, written likewise.",
            .hint = "no evaluation"},
           &RunConfig::data, &DataConfig::eval),
      bind({.path = "data.tokenizer",
            .doc = "Directory or file of a tokenizer (`tokenizer.json`, `tokenizer.model`), or "
                   "`bytes`: one token per byte."},
           &RunConfig::data, &DataConfig::tokenizer),
      bind({.path = "data.shuffle",
            .type = Type::boolean,
            .doc = "Each epoch visits the sequences in another order, drawn from train.seed."},
           &RunConfig::data, &DataConfig::shuffle),
  };
}

std::vector<Key> train_keys() {
  return {
      bind({.path = "train.seq_length",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Tokens of a sequence."},
           &RunConfig::train, &TrainConfig::seq_length),
      bind({.path = "train.micro_batch_size",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Sequences that a dp rank takes through the model at once."},
           &RunConfig::train, &TrainConfig::micro_batch_size),
      bind({.path = "train.global_batch_size",
            .type = Type::integer,
            .presence = Presence::absent,
            .limits = kPositive,
            .doc = "Sequences of one optimizer step over all ranks: a multiple of "
                   "micro_batch_size * dp_size.",
            .hint = "micro_batch_size * dp_size * grad_accum_steps"},
           &RunConfig::train, &TrainConfig::global_batch_size),
      bind({.path = "train.grad_accum_steps",
            .type = Type::integer,
            .presence = Presence::absent,
            .limits = kPositive,
            .doc = "Micro-batches of one optimizer step on each dp rank.",
            .hint = "1, or what global_batch_size asks for"},
           &RunConfig::train, &TrainConfig::grad_accum_steps),
      bind({.path = "train.max_steps",
            .type = Type::integer,
            .presence = Presence::required,
            .limits = kPositive,
            .doc = "Optimizer steps of the whole training, those before a resume included.",
            .hint = "100"},
           &RunConfig::train, &TrainConfig::max_steps),
      bind({.path = "train.seed",
            .type = Type::seed,
            .doc = "Seed of initial weights and data order."},
           &RunConfig::train, &TrainConfig::seed),
      bind({.path = "train.device",
            .allowed = {"auto", "cuda", "cpu"},
            .doc = "Where to train; `auto`: on GPUs where the program was built for them and the "
                   "host has one, else on the CPU."},
           &RunConfig::train, &TrainConfig::device),
      bind({.path = "train.cpu_threads",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Compute threads of each rank on the CPU.",
            .hint = "cores of the host / ranks on it"},
           &RunConfig::train, &TrainConfig::cpu_threads),
  };
}

std::vector<Key> optimizer_keys() {
  return {
      bind({.path = "optimizer.type", .allowed = {"adamw"}, .doc = "Update rule."},
           &RunConfig::optimizer, &OptimizerConfig::type),
      bind({.path = "optimizer.learning_rate",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Learning rate after the warm-up."},
           &RunConfig::optimizer, &OptimizerConfig::learning_rate),
      bind({.path = "optimizer.betas",
            .type = Type::betas,
            .doc = "Decay rates of the first and second moment."},
           &RunConfig::optimizer, &OptimizerConfig::betas),
      bind({.path = "optimizer.eps",
            .type = Type::real,
            .limits = {.above = 0},
            .doc = "Added to the root of the second moment."},
           &RunConfig::optimizer, &OptimizerConfig::eps),
      bind({.path = "optimizer.weight_decay",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Decoupled weight decay, of matrices only (not of norms and biases)."},
           &RunConfig::optimizer, &OptimizerConfig::weight_decay),
      bind({.path = "optimizer.max_grad_norm",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Gradients with a larger global norm are scaled down to it; 0: no clipping."},
           &RunConfig::optimizer, &OptimizerConfig::max_grad_norm),
      bind({.path = "scheduler.type",
            .allowed = {"constant", "linear", "cosine"},
            .doc = "Course of the learning rate from the warm-up to train.max_steps."},
           &RunConfig::scheduler, &SchedulerConfig::type),
      bind({.path = "scheduler.warmup_steps",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Steps over which the learning rate rises linearly."},
           &RunConfig::scheduler, &SchedulerConfig::warmup_steps),
      bind({.path = "scheduler.min_lr",
            .type = Type::real,
            .limits = {.at_least = 0},
            .doc = "Learning rate at train.max_steps, for linear and cosine."},
           &RunConfig::scheduler, &SchedulerConfig::min_lr),
  };
}

std::vector<Key> output_keys() {
  return {
      bind({.path = "checkpoint.save_steps",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Steps from one checkpoint to the next; 0: only at the end."},
           &RunConfig::checkpoint, &CheckpointConfig::save_steps),
      bind({.path = "checkpoint.keep",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "How many of the newest checkpoints to keep; 0: all."},
           &RunConfig::checkpoint, &CheckpointConfig::keep),
      bind({.path = "checkpoint.resume",
            .doc = "`auto`: go on from the newest valid checkpoint of run_dir, if it holds any; "
                   "`never`: start anew; else the directory of a checkpoint."},
           &RunConfig::checkpoint, &CheckpointConfig::resume),
      bind({.path = "eval.every_steps",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Steps from one evaluation on data.eval to the next; 0: only at the end."},
           &RunConfig::eval, &EvalConfig::every_steps),
      bind({.path = "eval.max_batches",
            .type = Type::integer,
            .limits = kNotNegative,
            .doc = "Global batches of one evaluation; 0: all of data.eval."},
           &RunConfig::eval, &EvalConfig::max_batches),
      bind({.path = "logging.every_steps",
            .type = Type::integer,
            .limits = kPositive,
            .doc = "Steps from one log line, and line of metrics.jsonl, to the next."},
           &RunConfig::logging, &LoggingConfig::every_steps),
  };
}

std::vector<Key> all_keys() {
  std::vector<Key> all = {
      bind({.path = "run_dir",
            .presence = Presence::required,
            .doc = "Directory of everything that the run writes: checkpoints, metrics, log.",
            .hint = "runs/my-run"},
           &RunConfig::run_dir)};
  for (const auto& part :
       {model_keys(), layout_and_data_keys(), train_keys(), optimizer_keys(), output_keys()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

std::string real_text(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) {
    return cat(static_cast<int64_t>(value), ".0");
  }
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;  // shortest exact form
  std::string text(buffer, end);
  const size_t exponent = text.find("e-0");  // 1e-05 reads better as 1e-5
  if (exponent != std::string::npos) text.erase(exponent + 2, 1);
  return text;
}

std::string quoted_text(const std::string& text) {
  // Plain only where no YAML reader could see anything but a text in it.
  const bool plain =
      !text.empty() && (std::isalpha(static_cast<unsigned char>(text[0])) || text[0] == '/') &&
      std::all_of(text.begin(), text.end(),
                  [](unsigned char c) {
                    return c < 128 &&
                           (std::isalnum(c) || c == '_' || c == '/' || c == '.' || c == '-');
                  }) &&
      text != "null" && text != "Null" && text != "NULL" && text != "true" && text != "false" &&
      text != "yes" && text != "no" && text != "on" && text != "off";
  return plain ? text : nlohmann::json(text).dump();  // a JSON string is a YAML string
}

}  // namespace

std::string Key::section() const {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

std::string Key::name() const {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? path : path.substr(dot + 1);
}

const std::vector<Section>& sections() {
  static const std::vector<Section> kSections = {
      {"", "Beside the sections below, the run file holds:"},
      {"model", "What to train: a model on disk, or a new one of a given shape."},
      {"model.architecture",
       "Shape of a new model with random weights, by the keys of Hugging Face's `config.json`."},
      {"parallel", "How the ranks share the work; the training is the same for every layout."},
      {"data", "What to train on."},
      {"train", "Batch, length and device of the training."},
      {"optimizer", "The update rule."},
      {"scheduler", "The learning rate over the steps."},
      {"checkpoint", "Saving and resuming."},
      {"eval", "Evaluation during the training."},
      {"logging", "What is logged, and how often."},
  };
  return kSections;
}

const std::vector<Key>& keys() {
  static const std::vector<Key> kKeys = all_keys();
  return kKeys;
}

const std::vector<Alternatives>& alternatives() {
  static const std::vector<Alternatives> kAlternatives = {
      {.members = {"model.path", "model.architecture"},
       .one_is_required = true,
       .example = "model: {path: models/Qwen2.5-0.5B}"},
      {.members = {"train.global_batch_size", "train.grad_accum_steps"},
       .one_is_required = false,
       .example = ""},
  };
  return kAlternatives;
}

const Key* find_key(const std::string& path) {
  for (const Key& key : keys()) {
    if (key.path == path) return &key;
  }
  return nullptr;
}

const Section* find_section(const std::string& path) {
  for (const Section& section : sections()) {
    if (section.path == path) return &section;
  }
  return nullptr;
}

std::vector<std::string> names_in(const std::string& section) {
  const std::string prefix = section.empty() ? "" : section + ".";
  std::vector<std::string> names;
  for (const Key& key : keys()) {
    if (key.path.compare(0, prefix.size(), prefix) != 0) continue;
    const std::string rest = key.path.substr(prefix.size());
    const std::string name = rest.substr(0, rest.find('.'));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

bool is_at_or_below(const std::string& path, const std::string& ancestor) {
  return path == ancestor || path.compare(0, ancestor.size() + 1, ancestor + ".") == 0;
}

std::string yaml_text(const Value& value) {
  return std::visit(
      [](const auto& v) -> std::string {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return quoted_text(v);
        } else if constexpr (std::is_same_v<T, bool>) {
          return v ? "true" : "false";
        } else if constexpr (std::is_same_v<T, double>) {
          return real_text(v);
        } else if constexpr (std::is_same_v<T, std::vector<double>>) {
          std::vector<std::string> texts;
          for (const double element : v) texts.push_back(real_text(element));
          return cat("[", join(texts), "]");
        } else if constexpr (std::is_same_v<T, std::vector<DataSource>>) {
          std::vector<std::string> texts;
          for (const DataSource& source : v) texts.push_back(quoted_text(source.path));
          return cat("[", join(texts), "]");
        } else {
          return std::to_string(v);
        }
      },
      value);
}

std::optional<Value> default_value(const Key& key) {
  if (key.presence != Presence::defaulted) return std::nullopt;
  RunConfig config;
  config.model.architecture.emplace();
  return key.get(config);
}

}  // namespace tptrain::config
