// What does not train: globs over the global tensors' names, as model.freeze has them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/run_config.h"
#include "model/decoder_config.h"
#include "parameters/parameter.h"

namespace tptrain::model {

/// Clears Parameter::trains where a glob (* and ?, the whole name) fits all slices. Throws
/// InternalError where it fits some of them: check_freeze() tells a user so.
void freeze(const std::vector<parameters::ParameterBlock>& blocks,
            const std::vector<std::string>& globs);

/// The first block with a parameter that trains: backward ends there, and forward keeps nothing
/// before it. blocks.size(): none does.
int first_training_block(const std::vector<parameters::ParameterBlock>& blocks);

/// Problems of model.freeze with this model and its adapters (that check_adapter() finds no problem
/// with): a glob that fits no tensor, one that fits a part of what is one product (of q, k and v;
/// of gate and up), and nothing left to train.
std::vector<Problem> check_freeze(const DecoderConfig& config,
                                  const std::vector<std::string>& globs,
                                  const std::optional<config::AdapterConfig>& adapter = {});

}  // namespace tptrain::model
