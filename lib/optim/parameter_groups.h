// Which weight decay and which share of the learning rate a tensor gets: the default rule and the
// patterns of optimizer.groups. A function of the global tensor alone, so every layout groups
// alike.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/run_config.h"
#include "sharding/shard_spec.h"

namespace tptrain::optim {

struct GroupSettings {
  double weight_decay = 0.0;
  double learning_rate_scale = 1.0;
  bool operator==(const GroupSettings&) const = default;
};

/// The first group of config.groups whose `match` (base/wildcard.h) fits tensor.name decides; what
/// it leaves open, and every other tensor, follows the default rule: matrices (dim >= 2) decay by
/// config.weight_decay, vectors (norms, biases) do not.
GroupSettings group_settings(const config::OptimizerConfig& config,
                             const sharding::ShardSpec& tensor);

/// A problem for each group that decides for none of the model's tensors: its pattern fits none, or
/// an earlier group takes all that it fits. Such a group is a slip of the pen, which would train
/// with other settings than its writer believes.
std::vector<Problem> check_groups(const config::OptimizerConfig& config,
                                  const std::vector<std::string>& tensor_names);

}  // namespace tptrain::optim
