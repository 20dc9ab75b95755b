#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_train(const std::vector<std::string>& arguments) {
  VerbParser parser("train", "Trains a model; run it under mpirun.",
                    "  mpirun -n 4 tptrain --config run.yaml --set train.max_steps=200");
  TrainCommand command;
  parser.option("--config", command.config, "FILE", "The run file (docs/configuration.md)");
  parser.list("--set", command.sets, "section.key=value", kSetDoc);
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.config.empty(), "--config is missing", "name the run file");
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
