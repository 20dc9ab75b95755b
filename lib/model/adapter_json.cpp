// An adapter's settings as the JSON of a manifest, and in what two of them differ.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "model/adapter.h"

namespace tptrain::model {
namespace {

using nlohmann::ordered_json;

ordered_json values_of(const config::AdapterConfig& adapter) {
  return {{"type", config::word(adapter.type)},
          {"rank", adapter.rank},
          {"alpha", adapter.alpha},
          {"targets", adapter.targets},
          {"dropout", adapter.dropout},
          {"rslora", adapter.rslora},
          {"modules_to_save", adapter.modules_to_save}};
}

/// all-linear as its words; words in the order of the model, each once.
config::AdapterConfig spelt_out(const DecoderConfig& config, config::AdapterConfig adapter) {
  std::vector<std::string> targets;
  const bool all = std::ranges::count(adapter.targets, config::kAllLinear) > 0;
  for (const std::string& word : adapter_words(config)) {
    if (all || std::ranges::count(adapter.targets, word) > 0) targets.push_back(word);
  }
  adapter.targets = std::move(targets);
  const std::set<std::string> whole(adapter.modules_to_save.begin(), adapter.modules_to_save.end());
  adapter.modules_to_save.assign(whole.begin(), whole.end());
  return adapter;
}

std::string shown(const ordered_json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::vector<std::string> words;
  for (const ordered_json& word : value) words.push_back(word.get<std::string>());
  return cat("[", join(words), "]");
}

}  // namespace

std::string to_json(const config::AdapterConfig& adapter) { return values_of(adapter).dump(); }

config::AdapterConfig adapter_from_json(const std::string& text, const std::string& name) {
  try {
    const ordered_json root = ordered_json::parse(text);
    config::AdapterConfig adapter;
    const auto type = config::meaning<config::AdapterType>(root.at("type").get<std::string>());
    if (!type) throw std::invalid_argument(cat("type is ", root.at("type").dump()));
    adapter.type = *type;
    adapter.rank = root.at("rank").get<int64_t>();
    adapter.alpha = root.at("alpha").get<double>();
    adapter.targets = root.at("targets").get<std::vector<std::string>>();
    adapter.dropout = root.at("dropout").get<double>();
    adapter.rslora = root.at("rslora").get<bool>();
    adapter.modules_to_save = root.at("modules_to_save").get<std::vector<std::string>>();
    return adapter;
  } catch (const std::exception& error) {
    throw CheckpointError(problem(cat("the adapter's settings cannot be read: ", error.what()))
                              .at(name)
                              .remedy("Use another checkpoint."));
  }
}

std::string differences(const DecoderConfig& config, const config::AdapterConfig& before,
                        const config::AdapterConfig& now) {
  const ordered_json was = values_of(spelt_out(config, before));
  const ordered_json is = values_of(spelt_out(config, now));
  std::vector<std::string> texts;
  for (const auto& [key, value] : was.items()) {
    if (key == "dropout" || value == is.at(key)) continue;
    texts.push_back(cat(key, " ", shown(value), " -> ", shown(is.at(key))));
  }
  return join(texts);
}

}  // namespace tptrain::model
