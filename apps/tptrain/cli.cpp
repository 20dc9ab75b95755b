#include "cli.h"

#include <algorithm>
#include <functional>
#include <sstream>

#include "base/error.h"
#include "base/text.h"
#include "options/completion.h"
#include "options/options.h"
#include "version.h"

namespace tptrain::apps {
namespace {

std::string version_text() {
  return cat(program_version(),
             "\nTrains decoder language models with tensor and data parallelism.\n");
}

constexpr const char* kHelp = R"(
Usage:
  mpirun -n RANKS tptrain --config FILE [--set section.key=value ...]
  tptrain launch -n RANKS --config FILE
  tptrain VERB [options]

Verbs (tptrain VERB --help shows the options of one):
  train     train a model; the default, so that the word may be left out
  launch    the same with mpirun started for you, and started again from the
            last checkpoint after a crash, a hang or a lost host
  plan      show how a model is cut over the ranks, and what memory and
            communication it takes; needs no GPU
  generate  continue a text with a trained model
  evaluate  measure a model's loss and perplexity on text
  prepare   tokenize the data of a run file before its run
  export    write a checkpoint as a Hugging Face model directory
  inspect   show what a checkpoint, a Hugging Face directory or a .safetensors
            file holds
  verify    check that checkpoints are whole
  report    write one HTML page about runs: curves, settings, checkpoints
  watch     show how runs are getting on, live in the terminal
  doctor    look whether this host is fit to train
  fetch     bring a model or a data set from the Hugging Face hub
  tokenize  show the ids of texts, or the texts of ids
  schema    print the JSON Schema of the run file, or its reference
  completion
            print what makes bash or zsh complete all of this

Examples:
  tptrain launch -n 4 --config configs/quickstart.yaml
  mpirun -n 4 tptrain --config run.yaml --set train.max_steps=200
  tptrain plan --config run.yaml --tp-size 2
  tptrain generate --checkpoint runs/quickstart --prompt "Once upon a time"
  tptrain export --checkpoint runs/quickstart --out exported
  tptrain verify runs/quickstart
  tptrain watch runs/quickstart
  tptrain report runs/a runs/b --out report.html

Exit codes:
   0  done
   1  internal error
   2  the command line or the run file is wrong
   3  data cannot be read
   4  no valid checkpoint, or one cannot be written
   5  loss or gradients are not finite
   6  communication failed or hung
  75  stopped on request with the state saved: run the same command again to
      go on
)";

struct Verb {
  std::string name;
  std::function<Command(const std::vector<std::string>&)> parse;
};

Command parse_completion(const std::vector<std::string>& arguments);

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> kVerbs = {
      {"train", parse_train},           {"launch", parse_launch},     {"plan", parse_plan},
      {"generate", parse_generate},     {"evaluate", parse_evaluate}, {"prepare", parse_prepare},
      {"export", parse_export},         {"inspect", parse_inspect},   {"verify", parse_verify},
      {"report", parse_report},         {"watch", parse_watch},       {"doctor", parse_doctor},
      {"fetch", parse_fetch},           {"tokenize", parse_tokenize}, {"schema", parse_schema},
      {"completion", parse_completion},
  };
  return kVerbs;
}

/// A verb's options, as it would print them.
std::vector<VerbWords> words_of_verbs() {
  std::vector<VerbWords> words;
  for (const Verb& verb : verbs()) {
    const Command listed = verb.parse({"--list-options"});
    std::istringstream lines(std::get<PrintCommand>(listed).text);
    words.push_back({verb.name, {}});
    for (std::string line; std::getline(lines, line);) words.back().options.push_back(line);
  }
  return words;
}

Command parse_completion(const std::vector<std::string>& arguments) {
  std::string shell;
  const auto help = parse_shell(arguments, shell);
  return help ? *help : PrintCommand{completion_script(shell, words_of_verbs())};
}

ConfigError unknown_verb(const std::string& word) {
  std::vector<std::string> names;
  for (const Verb& verb : verbs()) names.push_back(verb.name);
  Problem p = problem(cat("\"", word, "\" is no known verb")).at("tptrain");
  p.must(cat("be one of ", join(names)));
  const std::string meant = nearest_word(word, names);
  if (!meant.empty()) {
    p.remedy(cat("Did you mean tptrain ", meant, "?"));
  } else if (word.find(".y") != std::string::npos) {
    p.remedy(cat("To train: tptrain --config ", word));
  } else {
    p.remedy("tptrain --help shows what each does.");
  }
  return ConfigError(std::move(p));
}

Command parse_words(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    throw ConfigError(
        problem("there is nothing to do")
            .at("tptrain")
            .must("be given a run file, --config FILE, or a verb")
            .remedy("To train: mpirun -n 4 tptrain --config run.yaml (configs/ has files to "
                    "start from). tptrain --help shows the verbs and examples."));
  }
  const std::string& first = arguments[0];
  if (first == "help" && arguments.size() > 1) return parse_words({arguments[1], "--help"});
  if (first == "--help" || first == "-h" || first == "help") {
    return PrintCommand{cat(version_text(), kHelp)};
  }
  if (first == "--version" || first == "-V" || first == "version")
    return PrintCommand{version_text()};
  if (first.empty() || first[0] == '-') return parse_train(arguments);
  for (const Verb& verb : verbs()) {
    if (verb.name == first) return verb.parse({arguments.begin() + 1, arguments.end()});
  }
  throw unknown_verb(first);
}

}  // namespace

Command parse_cli(int argc, const char* const* argv) {
  return parse_words({argv + std::min(argc, 1), argv + argc});
}

}  // namespace tptrain::apps
