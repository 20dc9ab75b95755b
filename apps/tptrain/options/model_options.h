// Which model a verb uses: --checkpoint, --model or --adapter, the same in every verb that uses
// one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/text.h"
#include "cli.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

inline void model_options(VerbParser& parser, ModelNames& names) {
  parser.option("--checkpoint", names.checkpoint, "PATH",
                "A checkpoint, or a run directory: its newest valid one; or:");
  parser.option("--model", names.model, "DIR",
                "A Hugging Face directory: config.json, *.safetensors and the tokenizer; or:");
  parser.option("--adapter", names.adapter, "DIR",
                "A PEFT directory: adapter_config.json and adapter_model.safetensors");
  parser.option("--base", names.base, "DIR",
                "The model that the adapter, or the run of an adapter, was trained on, where it is "
                "no longer where they say");
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

inline void require_one_model(VerbParser& parser, const ModelNames& names) {
  for (const std::string& path : {names.checkpoint, names.model, names.adapter, names.base}) {
    parser.require(!path.starts_with("hf://"), path,
                   cat("be a folder: fetch it first, with tptrain fetch ",
                       path.substr(std::min<size_t>(path.size(), 5))));
  }
  std::vector<std::string> given;
  if (!names.checkpoint.empty()) given.emplace_back("--checkpoint");
  if (!names.model.empty()) given.emplace_back("--model");
  if (!names.adapter.empty()) given.emplace_back("--adapter");
  parser.require(given.size() == 1,
                 given.empty() ? std::string("none of --checkpoint, --model and --adapter is given")
                               : cat(join(given, " and "), " are both given"),
                 "be exactly one of them");
  parser.require(names.base.empty() || names.model.empty(), "--base is given with --model",
                 "go with an adapter or its checkpoint");
}

}  // namespace tptrain::apps
