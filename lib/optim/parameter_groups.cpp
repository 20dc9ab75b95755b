#include "optim/parameter_groups.h"

#include <algorithm>
#include <cstddef>

#include "base/text.h"
#include "base/wildcard.h"

namespace tptrain::optim {
namespace {

/// The place in config.groups of the group that decides for `name`; groups.size() where none does.
size_t deciding_group(const config::OptimizerConfig& config, std::string_view name) {
  const auto found = std::find_if(
      config.groups.begin(), config.groups.end(),
      [&](const config::ParameterGroup& group) { return matches_wildcards(group.match, name); });
  return static_cast<size_t>(found - config.groups.begin());
}

}  // namespace

GroupSettings group_settings(const config::OptimizerConfig& config,
                             const sharding::ShardSpec& tensor) {
  GroupSettings settings;
  settings.weight_decay = tensor.global_shape.size() >= 2 ? config.weight_decay : 0.0;
  const size_t index = deciding_group(config, tensor.name);
  if (index == config.groups.size()) return settings;
  const config::ParameterGroup& group = config.groups[index];
  settings.weight_decay = group.weight_decay.value_or(settings.weight_decay);
  settings.learning_rate_scale = group.learning_rate_scale;
  return settings;
}

std::vector<Problem> check_groups(const config::OptimizerConfig& config,
                                  const std::vector<std::string>& tensor_names) {
  std::vector<bool> decides(config.groups.size() + 1, false);
  for (const std::string& name : tensor_names) decides[deciding_group(config, name)] = true;
  std::vector<Problem> problems;
  for (size_t i = 0; i < config.groups.size(); ++i) {
    if (decides[i]) continue;
    const std::string& match = config.groups[i].match;
    const bool fits_some =
        std::any_of(tensor_names.begin(), tensor_names.end(),
                    [&](const std::string& name) { return matches_wildcards(match, name); });
    Problem p = problem(cat("optimizer.groups[", i, "].match is \"", match, "\", which ",
                            fits_some ? "fits only tensors that earlier groups decide for"
                                      : "fits no tensor of the model"));
    p.must("decide for at least one tensor");
    if (fits_some) {
      p.remedy("The first group that fits counts: move this one up, or remove it.");
    } else {
      p.remedy(
          cat("The whole name must fit, as \"*.bias\" or \"model.layers.0.*\"; `tptrain plan` "
              "lists the names",
              tensor_names.empty() ? "" : cat(", the first is ", tensor_names.front()), "."));
    }
    problems.push_back(std::move(p));
  }
  return problems;
}

}  // namespace tptrain::optim
