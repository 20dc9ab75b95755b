// A model to use, not to train: of a checkpoint that a run wrote, or of a Hugging Face directory,
// with the tokenizer that belongs to it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/control.h"
#include "model/decoder_config.h"
#include "sharding/state_dict.h"
#include "tokenizer/tokenizer.h"

namespace tptrain::inference {

/// Exactly one of checkpoint, model and adapter is not empty.
struct ModelChoice {
  std::string checkpoint;    // a checkpoint, a directory of them, or a run: the newest valid one
  std::string model;         // a directory with config.json, *.safetensors and a tokenizer
  std::string adapter = {};  // a PEFT directory
  std::string base = {};     // what an adapter was trained on; "": where it says that it lay
  std::string tokenizer;     // a tokenizer instead of the model's own; "": its own
};

struct OpenedModel {
  model::DecoderConfig config;
  std::unique_ptr<sharding::TensorSource> parameters;  // with the adapter added in
  std::unique_ptr<tokenizer::Tokenizer> tokenizer;
  std::string tokenizer_path;  // where it came from: a chat template may stand there
  /// Where generation stops: end of text, and what generation_config.json names besides.
  std::vector<int32_t> stop_ids;
  std::string description;            // "runs/a/checkpoints/step-00000100, step 100"
  std::vector<std::string> not_used;  // newer checkpoints that are not valid, a line each, for the
                                      // user; on rank 0 alone
  std::vector<std::string> notes;     // DecidedModel's; on rank 0 alone
};

/// The model that an adapter's base_model_name_or_path names. Throws ConfigError where that is no
/// directory here.
std::string base_of_adapter(const std::string& adapter);

/// Rank 0 decides which checkpoint, every rank opens it. Throws CheckpointError (none is valid, or
/// the tokenizer is not the one it was trained with), ConfigError (a model that is not built, no
/// such tokenizer), DataError (a damaged Hugging Face directory or tokenizer), on every rank alike.
/// Collective over `group`.
OpenedModel open_model(comm::ControlGroup& group, const ModelChoice& choice);

}  // namespace tptrain::inference
