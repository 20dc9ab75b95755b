#include "model/freeze.h"

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "base/wildcard.h"
#include "comm/communicator.h"
#include "model/decoder.h"
#include "model/names_of.h"
#include "optim/parameter_groups.h"

namespace tptrain::model {
namespace {

using parameters::NamedSlice;
using parameters::Parameter;
using parameters::ParameterBlock;

bool fits_any(const std::vector<std::string>& globs, const std::string& name) {
  return std::ranges::any_of(
      globs, [&](const std::string& glob) { return matches_wildcards(glob, name); });
}

int64_t frozen_slices(const Parameter& parameter, const std::vector<std::string>& globs) {
  return std::ranges::count_if(
      parameter.slices, [&](const NamedSlice& slice) { return fits_any(globs, slice.spec.name); });
}

bool is_split(const Parameter& parameter, int64_t frozen) {
  return frozen > 0 && frozen < static_cast<int64_t>(parameter.slices.size());
}

}  // namespace

void freeze(const std::vector<ParameterBlock>& blocks, const std::vector<std::string>& globs) {
  for (const ParameterBlock& block : blocks) {
    for (Parameter* parameter : block.parameters) {
      const int64_t frozen = frozen_slices(*parameter, globs);
      if (is_split(*parameter, frozen)) {
        throw InternalError(problem(cat("a part of '", parameter->name, "' is frozen"))
                                .must("be all of it or none"));
      }
      parameter->trains = frozen == 0;
    }
  }
}

int first_training_block(const std::vector<ParameterBlock>& blocks) {
  const auto found = std::ranges::find_if(blocks, [](const ParameterBlock& block) {
    return std::ranges::any_of(block.parameters,
                               [](const Parameter* parameter) { return parameter->trains; });
  });
  return static_cast<int>(found - blocks.begin());
}

std::vector<Problem> check_freeze(const DecoderConfig& config,
                                  const std::vector<std::string>& globs,
                                  const std::optional<config::AdapterConfig>& adapter) {
  if (globs.empty()) return {};
  const auto tp = comm::planning_communicator("tp", 0, 1);
  const Decoder decoder(config, *tp, {.adapter = adapter});
  std::vector<std::string> names;
  for (const Parameter* parameter : decoder.parameters()) {
    for (const std::string& name : names_of(*parameter)) names.push_back(name);
  }
  std::vector<Problem> problems;
  for (size_t i = 0; i < globs.size(); ++i) {
    if (std::ranges::any_of(
            names, [&](const std::string& name) { return matches_wildcards(globs[i], name); }))
      continue;
    problems.push_back(
        problem(
            cat("model.freeze[", i, "] is \"", globs[i], "\", which fits no tensor of the model"))
            .must("fit at least one")
            .remedy(cat("The whole name must fit, as \"model.layers.0.*\" or \"*.bias\"; `tptrain "
                        "plan` lists the names, the first is ",
                        names.front(), ".")));
  }
  for (const Parameter* parameter : decoder.parameters()) {
    if (!is_split(*parameter, frozen_slices(*parameter, globs))) continue;
    problems.push_back(problem(cat("model.freeze fits some of ",
                                   join(names_of(*parameter), " and "), ", which are one product"))
                           .must("fit all of them or none")
                           .remedy("Name the others too, as \"*.self_attn.?_proj.weight\" does."));
    break;  // the other layers' are alike
  }
  const auto is_frozen = [&](const Parameter* parameter) {
    return !parameter->trains || frozen_slices(*parameter, globs) > 0;
  };
  if (std::ranges::all_of(decoder.parameters(), is_frozen)) {
    problems.push_back(problem(cat("model.freeze fits every tensor ",
                                   adapter ? "that an adapter's run trains" : "of the model"))
                           .must("leave something to train")
                           .remedy("`tptrain evaluate` measures a model without training it."));
  }
  return problems;
}

}  // namespace tptrain::model
