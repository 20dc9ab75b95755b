// Which model a verb uses: --checkpoint or --model, the same in every verb that uses one.
#pragma once

#include <string>

#include "options/verb_parser.h"

namespace tptrain::apps {

inline void model_options(VerbParser& parser, std::string& checkpoint, std::string& model) {
  parser.option("--checkpoint", checkpoint, "PATH",
                "A checkpoint, or a run directory: its newest valid one; or:");
  parser.option("--model", model, "DIR",
                "A Hugging Face directory: config.json, *.safetensors and the tokenizer");
}

inline void require_one_model(VerbParser& parser, const std::string& checkpoint,
                              const std::string& model) {
  parser.require(checkpoint.empty() != model.empty(),
                 model.empty() ? "neither --checkpoint nor --model is given"
                               : "--checkpoint and --model are both given",
                 "be exactly one of them");
}

}  // namespace tptrain::apps
