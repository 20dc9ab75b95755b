// What a model that came from model.architecture lacks to be a Hugging Face directory beside its
// weights: the keys of config.json without which transformers takes Llama's (end of text 2, 2,048
// positions), generation_config.json, and, of the tokenizer `bytes`, a tokenizer.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_store.h"
#include "checkpoint/huggingface_writer.h"

namespace tptrain::apps {

struct NewModelFiles {
  std::string config;                       // the text of config.json
  std::vector<checkpoint::SideFile> files;  // beside those that `side_files` names
  std::vector<std::string> notes;           // what could not be found out, a line each
};

/// Of a checkpoint whose run kept no config.json; `model_files` is where it kept the tokenizer's
/// files. Ids come from the tokenizer that the model was trained with, positions from the run's
/// resolved_config.yaml; what is not there any more is left out and noted.
NewModelFiles new_model_files(const checkpoint::CheckpointInfo& info,
                              const std::filesystem::path& model_files);

}  // namespace tptrain::apps
