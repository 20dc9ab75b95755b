#include <type_traits>

#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

namespace {

// inspect and verify: one path.
template <typename PathCommand>
Command parse_path(VerbParser& parser, const std::vector<std::string>& arguments,
                   const std::string& more = "") {
  PathCommand command;
  if constexpr (std::is_same_v<PathCommand, InspectCommand>) {
    parser.flag("--json", command.json,
                "Print one JSON object with all that there is, config.json whole");
  }
  parser.positional("PATH", command.path,
                    cat("A checkpoint, a directory of checkpoints, or a run directory", more));
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.path.empty(), "PATH is missing",
                 cat("name a checkpoint, a directory of checkpoints, or a run directory", more));
  parser.finish();
  return command;
}

}  // namespace

Command parse_inspect(const std::vector<std::string>& arguments) {
  VerbParser parser("inspect",
                    "Shows what a checkpoint holds (the newest, where PATH holds several), by its "
                    "manifest alone; or what a Hugging Face directory or .safetensors file holds, "
                    "checking its headers, its index and its tensors against config.json.\n"
                    "Exit code 4: a rule is broken.",
                    "  tptrain inspect runs/a\n"
                    "  tptrain inspect runs/a/checkpoints/step-00000100 --json\n"
                    "  tptrain inspect models/Qwen2.5-0.5B\n"
                    "  tptrain inspect model-00001-of-00004.safetensors");
  return parse_path<InspectCommand>(parser, arguments,
                                    "; or a Hugging Face directory or .safetensors file");
}

Command parse_verify(const std::vector<std::string>& arguments) {
  VerbParser parser(
      "verify",
      "Checks that checkpoints are whole: manifest, sizes and SHA-256 of every shard, "
      "and that every tensor is covered.\nExit code 0: all are; 4: not.",
      "  tptrain verify runs/a\n"
      "  tptrain verify runs/a/checkpoints/step-00000100");
  return parse_path<VerifyCommand>(parser, arguments);
}

}  // namespace tptrain::apps
