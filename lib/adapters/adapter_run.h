// What a checkpoint of an adapter's training needs beside itself: its base, found by path and told
// by identity.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoint_store.h"
#include "config/run_config.h"
#include "model/decoder_config.h"
#include "sharding/state_dict.h"

namespace tptrain::adapters {

/// Names of what TrainState::extra holds of such a run.
inline constexpr const char* kAdapterExtra = "adapter";  // its section of the run file
inline constexpr const char* kBaseFactsExtra =
    "base_facts";  // lines that tell the base from others

/// The adapter that a run has trained; nothing where it trained the model itself.
std::optional<config::AdapterConfig> adapter_of(const checkpoint::TrainState& state);

/// The weights that the run began beside: at `base`, or, where that is "", where they lay then.
/// Throws CheckpointError: they were drawn, nothing is there, or the weights are others (naming the
/// files that differ); DataError as HuggingFaceSource.
std::unique_ptr<sharding::TensorSource> open_base(const checkpoint::CheckpointInfo& info,
                                                  const model::DecoderConfig& decoder,
                                                  const std::string& base);

}  // namespace tptrain::adapters
