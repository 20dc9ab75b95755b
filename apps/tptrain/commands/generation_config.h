// generation_config.json of an exported model: where other programs stop.
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/huggingface_writer.h"

namespace tptrain::apps {

/// A run that has learned to end its answers with another token than the model's end of text writes
/// that one: it is added to eos_token_id, in the generation_config.json of `order`, or in one that
/// is made from `config_json`. A sentence where it was; "" where nothing is to be said.
std::string add_end_of_turn(const checkpoint::TrainState& state, const std::string& config_json,
                            checkpoint::HuggingFaceExport& order);

}  // namespace tptrain::apps
