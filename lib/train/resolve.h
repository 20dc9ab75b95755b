// RunConfig + DecoderConfig + number of ranks -> ResolvedConfig: everything derived once, all
// problems of all sections at once, before a device is touched.
#pragma once

#include <string>
#include <vector>

#include "comm/device_mesh.h"
#include "config/parse.h"
#include "data/batch_sampler.h"
#include "model/decoder_config.h"
#include "train/settings.h"

namespace tptrain::train {

struct ResolvedConfig {
  config::RunConfig run;  // with derived values filled in: dp_size, global_batch_size, tokenizer,
                          // model.init, reduce_gradients, decay_steps of wsd; max_steps of
                          // epochs by resolve_epochs
  model::DecoderConfig decoder;
  comm::MeshShape mesh;
  comm::DeviceType device = comm::DeviceType::cpu;
  data::BatchShape batch;
  /// Hash of what decides the numbers of the training, not of its layout, where it writes or how
  /// often it logs.
  std::string training_hash;
  Settings settings;  // the same, key by key
};

/// data.tokenizer, or what it means where it is left out: the model's own, else "bytes".
std::string tokenizer_of(const config::RunConfig& run);

/// Throws ConfigError where model.path is no directory, or not a model's (model::
/// check_model_directory): before its tokenizer and its shape are
/// asked for, each of which would miss something of its own.
void check_model_directory(const config::Parsed& parsed);

/// Of a run that counts epochs: train.max_steps, and what follows from it, for that many sequences
/// an epoch.
void resolve_epochs(ResolvedConfig& resolved, int64_t sequences);

/// Throws ConfigError with every problem found: ranks against tp_size * dp_size, sizes that do not
/// divide (with tp sizes that would), batch sizes, vocabulary.
ResolvedConfig resolve(const config::Parsed& parsed, const model::DecoderConfig& decoder,
                       int64_t tokenizer_vocab_size, int world_size);

}  // namespace tptrain::train
