#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/text.h"
#include "comm/communicator.h"
#include "model/decoder.h"
#include "model/families/family.h"
#include "model/names_of.h"
#include "sharding/shard_spec.h"

namespace tptrain::model {
namespace {

using parameters::NamedSlice;
using parameters::Parameter;
using parameters::ParameterBlock;
using sharding::StoredModel;
using sharding::StoredTensor;

constexpr const char* kWeight = ".weight";
constexpr const char* kInPeft = "base_model.model.";

std::string without_ending(const std::string& name) { return name.substr(0, name.rfind('.')); }
std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

/// Matrices of the layers are linears: their norms and biases have one dimension.
bool is_linear(const StoredTensor& tensor) {
  return tensor.name.starts_with("model.layers.") && tensor.name.ends_with(kWeight) &&
         tensor.shape.size() == 2;
}

std::vector<AdapterSite> all_sites(const DecoderConfig& config) {
  std::vector<AdapterSite> sites;
  for (const StoredTensor& tensor : stored_model(config).tensors) {
    if (!is_linear(tensor)) continue;
    const std::string module = without_ending(tensor.stored_name);
    const std::string linear = without_ending(tensor.name);
    if (sites.empty() || sites.back().module != module) {
      sites.push_back({.word = last_part(module),
                       .module = module,
                       .name = linear,
                       .linears = {},
                       .in = tensor.shape[1]});
    } else {  // no one linear of ours is it
      sites.back().name = cat(without_ending(linear), ".", sites.back().word);
    }
    sites.back().linears.push_back({.name = linear, .out = tensor.shape[0]});
  }
  return sites;
}

bool names_all(const config::AdapterConfig& adapter) {
  return std::ranges::count(adapter.targets, config::kAllLinear) > 0;
}

bool is_target(const config::AdapterConfig& adapter, const std::string& word) {
  return names_all(adapter) || std::ranges::count(adapter.targets, word) > 0;
}

void add_once(std::vector<std::string>& words, std::string word) {
  if (std::ranges::count(words, word) == 0) words.push_back(std::move(word));
}

/// The head that shares the embedding's table is in no file: its word means the table.
constexpr const char* kHead = "lm_head";
bool means(const DecoderConfig& config, const std::string& word, const StoredTensor& tensor) {
  if (word == last_part(without_ending(tensor.stored_name))) return true;
  return config.tie_word_embeddings && word == kHead && tensor.name == "model.embed_tokens.weight";
}

std::vector<std::string> words_of_modules(const DecoderConfig& config) {
  std::vector<std::string> words;
  for (const StoredTensor& tensor : stored_model(config).tensors)
    add_once(words, last_part(without_ending(tensor.stored_name)));
  if (config.tie_word_embeddings) add_once(words, kHead);
  return words;
}

int64_t count_in(const Parameter& parameter, const std::set<std::string>& names) {
  return std::ranges::count_if(
      parameter.slices, [&](const NamedSlice& slice) { return names.count(slice.spec.name) > 0; });
}

bool is_part(const Parameter& parameter, int64_t count) {
  return count > 0 && count < static_cast<int64_t>(parameter.slices.size());
}

}  // namespace

int64_t AdapterSite::out() const {
  int64_t sum = 0;
  for (const Linear& linear : linears) sum += linear.out;
  return sum;
}

std::vector<AdapterSite> adapter_sites(const DecoderConfig& config,
                                       const config::AdapterConfig& adapter) {
  std::vector<AdapterSite> sites = all_sites(config);
  std::erase_if(sites, [&](const AdapterSite& site) { return !is_target(adapter, site.word); });
  if (sites.empty()) {
    throw InternalError(problem(cat("adapters of ", join(adapter.targets)))
                            .must("be of linears that the model has")
                            .remedy("check_adapter() tells a user so."));
  }
  return sites;
}

std::vector<std::string> adapter_words(const DecoderConfig& config) {
  std::vector<std::string> words;
  for (const AdapterSite& site : all_sites(config)) add_once(words, site.word);
  return words;
}

std::set<std::string> tensors_saved_whole(const DecoderConfig& config,
                                          const config::AdapterConfig& adapter) {
  std::set<std::string> names;
  for (const StoredTensor& tensor : stored_model(config).tensors) {
    for (const std::string& word : adapter.modules_to_save)
      if (means(config, word, tensor)) names.insert(tensor.name);
  }
  return names;
}

double adapter_scale(const config::AdapterConfig& adapter) {
  const auto rank = static_cast<double>(adapter.rank);
  return adapter.alpha / (adapter.rslora ? std::sqrt(rank) : rank);
}

int64_t adapter_parameters(const DecoderConfig& config, const config::AdapterConfig& adapter) {
  int64_t count = 0;
  for (const StoredTensor& tensor : stored_adapter(config, adapter).tensors)
    count += sharding::whole_tensor(tensor.name, tensor.shape).global_numel();
  return count;
}

double flops_per_token(const DecoderConfig& config, const config::AdapterConfig& adapter,
                       int64_t seq_length) {
  const std::set<std::string> whole = tensors_saved_whole(config, adapter);
  double frozen = 0, low_rank = 0;
  for (const AdapterSite& site : all_sites(config)) {
    for (const AdapterSite::Linear& linear : site.linears) {
      if (whole.count(linear.name + kWeight) == 0)
        frozen += static_cast<double>(site.in) * static_cast<double>(linear.out);
    }
    if (is_target(adapter, site.word))
      low_rank += static_cast<double>(adapter.rank) * static_cast<double>(site.in + site.out());
  }
  const char* head = config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  if (whole.count(head) == 0)
    frozen += static_cast<double>(config.vocab_size) * static_cast<double>(config.hidden_size);
  return flops_per_token(config, seq_length) - 2 * frozen + 6 * low_rank;
}

StoredModel stored_adapter(const DecoderConfig& config, const config::AdapterConfig& adapter) {
  StoredModel stored;
  for (const AdapterSite& site : adapter_sites(config, adapter)) {
    const std::vector<int64_t> shape = {adapter.rank, site.in};
    stored.tensors.push_back({.name = site.name + ".lora_A.weight",
                              .shape = shape,
                              .stored_name = kInPeft + site.module + ".lora_A.weight",
                              .stored_shape = shape});
    int64_t first = 0;
    for (const AdapterSite::Linear& linear : site.linears) {
      stored.tensors.push_back({.name = linear.name + ".lora_B.weight",
                                .shape = {linear.out, adapter.rank},
                                .stored_name = kInPeft + site.module + ".lora_B.weight",
                                .stored_shape = {site.out(), adapter.rank},
                                .first = first});
      first += linear.out;
    }
  }
  const std::set<std::string> whole = tensors_saved_whole(config, adapter);
  for (StoredTensor& tensor : stored_model(config).tensors) {
    if (whole.count(tensor.name) == 0) continue;
    tensor.stored_name = kInPeft + tensor.stored_name;
    stored.tensors.push_back(std::move(tensor));
  }
  return stored;
}

std::vector<Problem> check_adapter(const DecoderConfig& config,
                                   const config::AdapterConfig& adapter) {
  std::vector<Problem> problems;
  const std::vector<std::string> linears = adapter_words(config);
  const auto complain = [&](const char* key, size_t i, const std::string& word,
                            const std::vector<std::string>& known) {
    problems.push_back(problem(cat(key, "[", i, "] is ", word, ", which no module of a ",
                                   config.model_type, " model is called"))
                           .must(cat("be one of ", join(known))));
  };
  for (size_t i = 0; i < adapter.targets.size(); ++i) {
    const std::string& word = adapter.targets[i];
    if (word != config::kAllLinear && std::ranges::count(linears, word) == 0)
      complain("adapter.targets", i, word, linears);
  }
  const std::vector<std::string> modules = words_of_modules(config);
  for (size_t i = 0; i < adapter.modules_to_save.size(); ++i) {
    const std::string& word = adapter.modules_to_save[i];
    if (std::ranges::count(modules, word) == 0) {
      complain("adapter.modules_to_save", i, word, modules);
    } else if (std::ranges::count(linears, word) > 0 && is_target(adapter, word)) {
      problems.push_back(
          problem(cat("adapter.modules_to_save[", i, "] is ", word, ", which has an adapter"))
              .must("train whole or by an adapter")
              .remedy("Leave it out here, or name in adapter.targets the linears but for it."));
    }
  }
  if (!problems.empty()) return problems;
  const std::set<std::string> whole = tensors_saved_whole(config, adapter);
  const auto tp = comm::planning_communicator("tp", 0, 1);
  const Decoder decoder(config, *tp);
  for (const Parameter* parameter : decoder.parameters()) {
    if (!is_part(*parameter, count_in(*parameter, whole))) continue;
    problems.push_back(problem(cat("adapter.modules_to_save has some of ",
                                   join(names_of(*parameter), " and "), ", which are one product"))
                           .must("have all of them or none")
                           .remedy("Name the others too."));
    break;  // the other layers' are alike
  }
  return problems;
}

Adapters::Adapters(const DecoderConfig& config, const config::AdapterConfig& adapter)
    : low_rank_({.rank = adapter.rank, .scale = adapter_scale(adapter)}),
      dropout_(adapter.dropout),
      saved_whole_(tensors_saved_whole(config, adapter)) {
  for (const AdapterSite& site : adapter_sites(config, adapter)) {
    for (const AdapterSite::Linear& linear : site.linears) a_of_[linear.name] = site.name;
  }
}

const std::string& Adapters::of(const std::string& linear) const {
  static const std::string kNone;
  const auto found = a_of_.find(linear);
  return found == a_of_.end() ? kNone : found->second;
}

void Adapters::train_alone(const std::vector<ParameterBlock>& blocks) const {
  if (low_rank_.rank == 0) return;
  for (const ParameterBlock& block : blocks) {
    for (Parameter* parameter : block.parameters) {
      if (parameter->adapter) continue;
      const int64_t whole = count_in(*parameter, saved_whole_);
      if (is_part(*parameter, whole)) {
        throw InternalError(problem(cat("a part of '", parameter->name, "' is saved whole"))
                                .must("be all of it or none"));
      }
      parameter->trains = parameter->trains && whole > 0;
    }
  }
}

std::vector<parameters::Parameter*> take_packed(
    std::vector<parameters::ParameterBlock>& blocks,
    const std::optional<config::AdapterConfig>& adapter) {
  std::vector<parameters::Parameter*> packed;
  if (!adapter || adapter->base_dtype != config::BaseDtype::nf4) return packed;
  for (size_t block = 1; block + 1 < blocks.size(); ++block) {
    std::erase_if(blocks[block].parameters, [&](parameters::Parameter* parameter) {
      const bool base = parameter->shape.size() == 2 && !parameter->adapter;
      if (base) packed.push_back(parameter);
      return base;
    });
  }
  return packed;
}

}  // namespace tptrain::model
