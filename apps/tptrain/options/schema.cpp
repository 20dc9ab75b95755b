#include "options/options.h"
#include "options/verb_parser.h"

namespace tptrain::apps {

Command parse_schema(const std::vector<std::string>& arguments) {
  VerbParser parser("schema", "Prints the JSON Schema (draft 2020-12) of the run file.",
                    "  tptrain schema > run.schema.json\n"
                    "  tptrain schema --markdown > docs/configuration.md");
  SchemaCommand command;
  parser.flag("--markdown", command.markdown, "Prints the reference of all keys instead");
  if (auto help = parser.parse(arguments)) return *help;
  return command;
}

}  // namespace tptrain::apps
