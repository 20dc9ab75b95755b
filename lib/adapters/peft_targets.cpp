#include "adapters/peft_targets.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "base/text.h"
#include "formats/safetensors_header.h"
#include "model/adapter.h"
#include "tokenizer/regex.h"

namespace tptrain::adapters {

namespace {

constexpr const char* kAllLinear = "all-linear";

/// Every linear of the model's layers.
std::vector<model::AdapterSite> linears_of(const model::DecoderConfig& decoder) {
  config::AdapterConfig all;
  all.targets = {kAllLinear};
  return model::adapter_sites(decoder, all);
}

bool is_meant(const std::string& module, const std::string& name) {
  return module == name || module.ends_with("." + name);
}

using Meant = std::function<bool(const std::string& module)>;

/// Python's re.fullmatch.
Meant fits_pattern(const std::string& pattern, const std::string& where) {
  auto regex = std::make_shared<tokenizer::Regex>("\\A(?:" + pattern + ")\\z", where);
  return [regex](const std::string& module) {
    std::vector<tokenizer::Span> spans;
    regex->find_all(module, spans);
    return spans.size() == 1 && spans.front().match;
  };
}

Meant meaning_of(const PeftConfig& config, const std::string& where) {
  if (config.target_pattern == kAllLinear) return [](const std::string&) { return true; };
  if (!config.target_pattern.empty()) return fits_pattern(config.target_pattern, where);
  return [names = config.targets](const std::string& module) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return is_meant(module, name); });
  };
}

}  // namespace

TargetWords target_words(const PeftConfig& config, const model::DecoderConfig& decoder,
                         const std::string& where) {
  const std::vector<model::AdapterSite> linears = linears_of(decoder);
  TargetWords result;
  for (const std::string& name : config.targets) {
    const bool fits = std::any_of(linears.begin(), linears.end(),
                                  [&](const auto& site) { return is_meant(site.module, name); });
    if (fits) continue;
    result.wrong.push_back(cat("target_modules has ", formats::quoted_name(name),
                               ", which is no linear of this model's layers (those are ",
                               join(model::adapter_words(decoder)), ")"));
  }
  const Meant meant = meaning_of(config, where);
  std::map<std::string, std::vector<std::string>>
      without;  // word -> its modules that are not meant
  std::set<std::string> chosen;
  for (const model::AdapterSite& site : linears) {
    if (meant(site.module)) {
      chosen.insert(site.word);
    } else {
      without[site.word].push_back(site.module);
    }
  }
  for (const auto& [word, modules] : without) {
    if (!chosen.contains(word)) continue;
    result.wrong.push_back(cat("target_modules has some of the modules called ", word,
                               " and not others (", modules.front(),
                               modules.size() > 1 ? ", ..." : "",
                               "): adapters of some layers alone are not built"));
  }
  if (chosen.empty() && result.wrong.empty()) {
    result.wrong.push_back(cat("target_modules is ", formats::quoted_name(config.target_pattern),
                               ", which fits no linear of this model's layers"));
  }
  const std::vector<std::string> words = model::adapter_words(decoder);
  std::copy_if(words.begin(), words.end(), std::back_inserter(result.words),
               [&](const std::string& word) { return chosen.contains(word); });
  if (result.words.size() == words.size()) result.words = {kAllLinear};
  return result;
}

}  // namespace tptrain::adapters
