#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_plan(const std::vector<std::string>& arguments) {
  VerbParser parser("plan",
                    "Shows how a model is cut over the ranks, and a forecast of memory and "
                    "communication. Needs no GPU and no mpirun.",
                    "  tptrain plan --config run.yaml --tp-size 4 --dp-size 2\n"
                    "  tptrain plan --model models/Qwen2.5-0.5B --tp-size 2");
  PlanCommand command;
  parser.option("--config", command.config, "FILE", "The run file; or:");
  parser.option("--model", command.model, "DIR", "A directory with a config.json");
  parser.option("--tp-size", command.tp_size, "N",
                "Tensor-parallel size, instead of the run file's");
  parser.option("--dp-size", command.dp_size, "N", "Data-parallel size, instead of the run file's");
  parser.list("--set", command.sets, "section.key=value", kSetDoc);
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.config.empty() || !command.model.empty(),
                 "neither --config nor --model is given", "be exactly one of them");
  parser.require(command.config.empty() || command.model.empty(),
                 "--config and --model are both given", "be exactly one of them");
  parser.require(command.sets.empty() || command.model.empty(), "--set is given with --model",
                 "go with --config, whose values it overrides");
  for (const auto& [name, size] :
       {std::pair("--tp-size", command.tp_size), std::pair("--dp-size", command.dp_size)}) {
    parser.require(size.value_or(1) >= 1, cat(name, " is ", size.value_or(1)), "be at least 1");
  }
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
