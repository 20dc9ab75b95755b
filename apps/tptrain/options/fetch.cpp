#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_fetch(const std::vector<std::string>& arguments) {
  VerbParser parser(
      "fetch",
      "Fetches a model or a data set from the Hugging Face hub into a folder "
      "(docs/huggingface.md). "
      "What an earlier attempt left is gone on with; each file is checked against the hub's hash "
      "before it gets its name. Heeds HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE and "
      "HTTPS_PROXY.",
      "  tptrain fetch Qwen/Qwen2.5-0.5B\n"
      "  tptrain fetch datasets/Salesforce/wikitext --include 'wikitext-2-raw-v1/*'");
  FetchCommand command;
  parser.positional("NAME", command.name, "OWNER/NAME; of a data set datasets/OWNER/NAME");
  parser.option("--revision", command.revision, "R",
                "A branch, a tag or a commit; main if left out");
  parser.list("--include", command.include, "GLOB",
              "Only files that match, as *.json; may be repeated. Left out: all that the program "
              "reads, not the same weights in other forms");
  parser.option("--out", command.out, "DIR",
                "The folder; models/NAME or data/NAME, without the owner, if left out");
  parser.flag("--overwrite", command.overwrite,
              "Replaces files that are there and not as in the repository");
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.name.empty(), "NAME is missing", "name a repository of the hub");
  parser.finish();
  return command;
}

}  // namespace tptrain::apps
