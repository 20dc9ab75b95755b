#include "config/keys.h"

#include <algorithm>
#include <utility>

#include "config/key_binding.h"

namespace tptrain::config {
namespace {

std::vector<Key> all_keys() {
  const std::vector<Key> top = {
      bind({.path = "run_dir",
            .type = Type::path,
            .presence = Presence::required,
            .doc = "Directory of everything that the run writes: checkpoints, metrics, log.",
            .hint = "runs/my-run"},
           &RunConfig::run_dir)};
  return joined({top, model_keys(), adapter_keys(), parallel_keys(), data_keys(), train_keys(),
                 optimizer_keys(), scheduler_keys(), output_keys()});
}

}  // namespace

std::vector<Key> joined(const std::vector<std::vector<Key>>& parts) {
  std::vector<Key> all;
  for (const std::vector<Key>& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

std::vector<int64_t> few_values(const Limits& limits) {
  std::vector<int64_t> values;
  if (!limits.at_least || !limits.at_most || *limits.at_most - *limits.at_least > 3) return values;
  for (int64_t value = *limits.at_least; value <= *limits.at_most; ++value) values.push_back(value);
  return values;
}

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
      {"adapter",
       "Trains low-rank matrices beside the model's linears in the place of the model "
       "(docs/lora.md). "
       "Left out: all parameters train, but those of model.freeze."},
      {"parallel",
       "How the ranks share the work; the training is the same for every layout (reduce_dtype "
       "alone changes numbers)."},
      {"data", "What to train on."},
      {"data.columns",
       "What columns of rows are called in the files, where it is not what they are called here: "
       "`{messages: dialog}`. Where these say what rows are (text, input_ids, messages, "
       "conversations, instruction with output, prompt with completion), they are read as nothing "
       "else. An entry of data.train or data.eval may have `columns` of its own."},
      {"data.roles",
       "Who speaks in conversations, where the words for it are not those that are known: "
       "`{assistant: [bot, helper], user: visitor}`, the template's name and then the words of the "
       "files. `human` and `gpt` and the other words of sharegpt are known in its form. An entry "
       "of data.train or data.eval may have `roles` of its own."},
      {"train", "Batch, length, device and numbers of the training."},
      {"train.guard",
       "What becomes of a step whose loss or gradient norm lies far above those before it."},
      {"optimizer", "The update rule."},
      {"optimizer.muon", "What the matrices of the layers take from optimizer.type muon."},
      {"scheduler", "The learning rate over the steps."},
      {"checkpoint", "Saving and resuming."},
      {"eval", "Evaluation during the training."},
      {"logging", "What is logged and audited, and how often."},
  };
  return kSections;
}

const std::vector<std::string>& optional_sections() {
  static const std::vector<std::string> kOptional = {"model.architecture", "adapter"};
  return kOptional;
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
      {.members = {"train.max_steps", "train.epochs"},
       .one_is_required = true,
       .example = "train: {max_steps: 100}"},
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

std::optional<Value> default_value(const Key& key) {
  if (key.presence != Presence::defaulted) return std::nullopt;
  RunConfig config;
  config.model.architecture.emplace();
  config.adapter.emplace();
  return key.get(config);
}

}  // namespace tptrain::config
