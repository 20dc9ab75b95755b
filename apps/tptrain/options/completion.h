// Scripts that make bash and zsh complete verbs, options and paths.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cli.h"

namespace tptrain::apps {

struct VerbWords {
  std::string verb;
  std::vector<std::string> options;  // "--config"
};
/// What `tptrain completion` is given; its help, or the list of its options, where that is asked
/// for.
std::optional<PrintCommand> parse_shell(const std::vector<std::string>& arguments,
                                        std::string& shell);
/// `shell`: "bash" or "zsh". Throws ConfigError for another one.
std::string completion_script(const std::string& shell, const std::vector<VerbWords>& verbs);

}  // namespace tptrain::apps
