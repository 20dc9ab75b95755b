#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_prepare(const std::vector<std::string>& arguments) {
  VerbParser parser(
      "prepare",
      "Tokenizes what data.train and data.eval of a run file name, on all cores, into the files "
      "that "
      "its run will take: data.cache_dir, or run_dir/data. What is there already is only checked; "
      "a run does the same by itself.",
      "  tptrain prepare --config run.yaml\n"
      "  tptrain prepare --config run.yaml --show 3\n"
      "  tptrain prepare --config run.yaml --set data.cache_dir=tokens --megatron out");
  PrepareCommand command;
  parser.option("--config", command.config, "FILE", "The run file");
  parser.list("--set", command.sets, "section.key=value", kSetDoc);
  parser.option("--show", command.show, "N",
                "Print the first N documents of each source, with what is learned of them marked");
  parser.option("--megatron", command.megatron, "DIR",
                "Also write each source as a token file of Megatron-LM, DIR/NAME.bin and .idx");
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.config.empty(), "--config is missing", "name the run file");
  parser.require(command.show >= 0, cat("--show is ", command.show), "be at least 0");
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
