#include "options/completion.h"

#include "base/error.h"
#include "base/text.h"
#include "options/verb_parser.h"

namespace tptrain::apps {
namespace {

std::string names_of(const std::vector<VerbWords>& verbs) {
  std::vector<std::string> names;
  for (const VerbWords& one : verbs) names.push_back(one.verb);
  return join(names, " ");
}

/// "    plan) options='...';;" a verb.
std::string cases(const std::vector<VerbWords>& verbs) {
  std::string out;
  for (const VerbWords& one : verbs)
    out += cat("    ", one.verb, ") options='", join(one.options, " "), " --help' ;;\n");
  return out;
}

std::string options_of_train(const std::vector<VerbWords>& verbs) {
  for (const VerbWords& one : verbs) {
    if (one.verb == "train") return join(one.options, " ");
  }
  return "";
}

std::string bash(const std::vector<VerbWords>& verbs) {
  return cat(R"(# bash completion of tptrain; written by: tptrain completion bash
_tptrain() {
  local word=${COMP_WORDS[COMP_CWORD]} verb='' options='' i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    [[ ${COMP_WORDS[i]} == -* ]] || { verb=${COMP_WORDS[i]}; break; }
  done
  case $verb in
)",
             cases(verbs), "    *) options='", options_of_train(verbs), R"( --help --version' ;;
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$word"))
  elif [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W ")",
             names_of(verbs), R"(" -- "$word"))
  elif [[ $verb == completion ]]; then
    COMPREPLY=($(compgen -W 'bash zsh' -- "$word"))
  else
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}
complete -F _tptrain tptrain
)");
}

std::string zsh(const std::vector<VerbWords>& verbs) {
  return cat(R"(#compdef tptrain
# zsh completion of tptrain; written by: tptrain completion zsh
local options=''
case ${words[2]:-} in
)",
             cases(verbs), "    *) options='", options_of_train(verbs), R"( --help --version' ;;
esac
if [[ ${words[CURRENT]} == -* ]]; then
  compadd -- ${=options}
elif (( CURRENT == 2 )); then
  compadd -- )",
             names_of(verbs), R"(
elif [[ ${words[2]} == completion ]]; then
  compadd -- bash zsh
else
  _files
fi
)");
}

}  // namespace

std::optional<PrintCommand> parse_shell(const std::vector<std::string>& arguments,
                                        std::string& shell) {
  VerbParser parser(
      "completion",
      "Prints a script that makes a shell complete verbs, options and paths. For bash, "
      "keep it as ~/.local/share/bash-completion/completions/tptrain; for zsh, as "
      "_tptrain in a folder of fpath.",
      "  tptrain completion bash > tptrain-completion.bash");
  parser.positional("SHELL", shell, "bash or zsh");
  return parser.parse(arguments);
}

std::string completion_script(const std::string& shell, const std::vector<VerbWords>& verbs) {
  if (shell == "bash") return bash(verbs);
  if (shell == "zsh") return zsh(verbs);
  throw ConfigError(problem(shell.empty() ? "the shell is missing" : cat("\"", shell, "\""))
                        .at("tptrain completion")
                        .must("be bash or zsh")
                        .remedy("tptrain completion --help says where to keep what it prints."));
}

}  // namespace tptrain::apps
