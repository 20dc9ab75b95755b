// The one place that decides what model a Hugging Face directory is: config.json, and, where that
// ties the head to the embedding, whether the weights do. A file may hold a head of its own all the
// same (transformers then unties, too); taking it for a copy would be another model.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "comm/control.h"
#include "config/run_config.h"
#include "model/decoder_config.h"

namespace tptrain::inference {

struct DecidedModel {
  model::DecoderConfig decoder;
  /// What the user should know about it, a line each: an untied head, ids without a row.
  std::vector<std::string> notes = {};
};

/// `decoder`, as the directory's config.json says it, untied where the weights in it hold a head of
/// other values than the embedding. A directory without weights, and one whose head is a copy, stay
/// as they are. Reads both tables where both are there. Throws DataError as HuggingFaceSource.
DecidedModel decide_head(const std::filesystem::path& directory, model::DecoderConfig decoder);

/// The model of a run file or a verb: model::decoder_config, then decide_head where the weights of
/// model.path are used. Rank 0 looks at the weights, every rank gets its answer. Throws what those
/// throw, on every rank alike. Collective over `group`.
DecidedModel decide_model(comm::ControlGroup& group, const config::ModelConfig& model,
                          int64_t tokenizer_vocab_size);

}  // namespace tptrain::inference
