#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

namespace {

// inspect and verify: one path.
template <typename PathCommand>
Command parse_path(VerbParser& parser, const std::vector<std::string>& arguments) {
  PathCommand command;
  parser.positional("PATH", command.path,
                    "A checkpoint, a directory of checkpoints, or a run directory");
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.path.empty(), "PATH is missing",
                 "name a checkpoint, a directory of checkpoints, or a run directory");
  parser.finish();
  return command;
}

}  // namespace

Command parse_inspect(const std::vector<std::string>& arguments) {
  VerbParser parser("inspect",
                    "Shows what a checkpoint holds (the newest, where PATH holds several). Reads "
                    "the manifest alone.",
                    "  tptrain inspect runs/a\n"
                    "  tptrain inspect runs/a/checkpoints/step-00000100");
  return parse_path<InspectCommand>(parser, arguments);
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
