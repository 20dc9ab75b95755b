#include "optim/parameter_groups.h"

#include <string>
#include <utility>
#include <vector>

#include "support/catch.h"

using tptrain::config::OptimizerConfig;
using tptrain::optim::check_groups;
using tptrain::optim::group_settings;
using tptrain::optim::GroupSettings;
using tptrain::sharding::ShardSpec;
using tptrain::sharding::slice_of;
using tptrain::sharding::whole_tensor;

namespace {

const ShardSpec kMatrix = whole_tensor("model.layers.0.mlp.down_proj.weight", {32, 64});
const ShardSpec kNorm = whole_tensor("model.norm.weight", {32});
const ShardSpec kBias = whole_tensor("model.layers.0.self_attn.q_proj.bias", {32});

OptimizerConfig with_decay(double weight_decay,
                           std::vector<tptrain::config::ParameterGroup> groups = {}) {
  OptimizerConfig config;
  config.weight_decay = weight_decay;
  config.groups = std::move(groups);
  return config;
}

}  // namespace

TEST_CASE("without groups matrices decay, vectors do not", "[optim]") {
  const OptimizerConfig config = with_decay(0.1);
  CHECK(group_settings(config, kMatrix) == GroupSettings{.weight_decay = 0.1});
  CHECK(group_settings(config, kNorm) == GroupSettings{});
  CHECK(group_settings(config, kBias) == GroupSettings{});
}

TEST_CASE("the first group that fits decides, what it leaves open follows the default rule",
          "[optim]") {
  const OptimizerConfig config = with_decay(
      0.1, {{.match = "*.down_proj.weight", .weight_decay = {}, .learning_rate_scale = 0.5},
            {.match = "*.weight", .weight_decay = 0.3, .learning_rate_scale = 2.0},
            {.match = "*.bias", .weight_decay = 0.0, .learning_rate_scale = 0.0},
            {.match = "*", .weight_decay = 9.0}});
  CHECK(group_settings(config, kMatrix) == GroupSettings{0.1, 0.5});
  CHECK(group_settings(config, kNorm) == GroupSettings{0.3, 2.0});  // also a vector, if said so
  CHECK(group_settings(config, kBias) == GroupSettings{0.0, 0.0});
}

TEST_CASE("a group's decay of a vector that it leaves open stays none", "[optim]") {
  const OptimizerConfig config = with_decay(
      0.1, {{.match = "model.norm.weight", .weight_decay = {}, .learning_rate_scale = 3.0}});
  CHECK(group_settings(config, kNorm) == GroupSettings{0.0, 3.0});
}

TEST_CASE("every slice of a tensor has the tensor's settings", "[optim]") {
  const OptimizerConfig config = with_decay(0.1, {{.match = "*mlp*", .weight_decay = 0.2}});
  for (const int64_t begin : {0, 8, 31}) {
    CHECK(group_settings(config, slice_of(kMatrix.name, {32, 64}, 0, begin, begin + 1)) ==
          group_settings(config, kMatrix));
  }
}

TEST_CASE("a group that decides for no tensor is named, with what to do", "[optim]") {
  OptimizerConfig config;
  const std::vector<std::string> names = {kMatrix.name, kNorm.name};
  CHECK(check_groups(config, names).empty());
  config.groups = {{.match = "*norm*", .weight_decay = {}},
                   {.match = "*.bias", .weight_decay = {}},
                   {.match = "model.norm.*", .weight_decay = {}},
                   {.match = "*.weight", .weight_decay = {}}};
  const auto problems = check_groups(config, names);
  REQUIRE(problems.size() == 2);
  CHECK(
      problems[0].text() ==
      "optimizer.groups[1].match is \"*.bias\", which fits no tensor of the model: it must "
      "decide for at least one tensor.\n"
      "  The whole name must fit, as \"*.bias\" or \"model.layers.0.*\"; `tptrain plan` lists the "
      "names, the first is model.layers.0.mlp.down_proj.weight.");
  CHECK(problems[1].text() ==
        "optimizer.groups[2].match is \"model.norm.*\", which fits only tensors that earlier "
        "groups decide for: it must decide for at least one tensor.\n"
        "  The first group that fits counts: move this one up, or remove it.");
}
