// tptrain schema: what the list of keys says, for editors (JSON Schema) and for
// docs/configuration.md.
#include <iostream>

#include "commands/commands.h"
#include "config/parse.h"

namespace tptrain::apps {

int run_schema(const SchemaCommand& command) {
  std::cout << (command.markdown ? config::markdown_reference() : config::json_schema());
  return 0;
}

}  // namespace tptrain::apps
