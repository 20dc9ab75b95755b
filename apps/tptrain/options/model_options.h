// Which model a verb uses: --checkpoint or --model, the same in every verb that uses one.
#pragma once

#include <cstdint>
#include <string>

#include "options/verb_parser.h"

namespace tptrain::apps {

inline void model_options(VerbParser& parser, std::string& checkpoint, std::string& model) {
  parser.option("--checkpoint", checkpoint, "PATH",
                "A checkpoint, or a run directory: its newest valid one; or:");
  parser.option("--model", model, "DIR",
                "A Hugging Face directory: config.json, *.safetensors and the tokenizer");
}

/// Of a verb that may run on several ranks.
inline void hang_timeout_option(VerbParser& parser, int64_t& seconds) {
  parser.option("--hang-timeout", seconds, "SECONDS",
                "Without progress for so long a rank among several ends the job with exit code 6, "
                "saying what it waits for (600); 0: never");
}

inline void require_hang_timeout(VerbParser& parser, int64_t seconds) {
  parser.require(seconds >= 0, cat("--hang-timeout is ", seconds), "be at least 0");
}

inline void require_one_model(VerbParser& parser, const std::string& checkpoint,
                              const std::string& model) {
  for (const std::string& path : {checkpoint, model}) {
    parser.require(!path.starts_with("hf://"), path,
                   cat("be a folder: fetch it first, with tptrain fetch ",
                       path.substr(std::min<size_t>(path.size(), 5))));
  }
  parser.require(checkpoint.empty() != model.empty(),
                 model.empty() ? "neither --checkpoint nor --model is given"
                               : "--checkpoint and --model are both given",
                 "be exactly one of them");
}

}  // namespace tptrain::apps
