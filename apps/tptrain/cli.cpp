#include "cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <type_traits>

#include "base/error.h"
#include "base/text.h"

namespace tptrain::apps {
namespace {

constexpr const char* kVersion =
    "tptrain " TPTRAIN_VERSION " (" TPTRAIN_BACKENDS
    ")\n"
    "Trains decoder language models with tensor and data parallelism.\n";

constexpr const char* kHelp = R"(
Usage:
  mpirun -n RANKS tptrain --config FILE [--set section.key=value ...]
  tptrain VERB [options]

Verbs (tptrain VERB --help shows the options of one):
  train     train a model; the default, so that the word may be left out
  plan      show how a model is cut over the ranks, and what memory and communication it takes; needs no GPU
  generate  continue a text with a trained model
  inspect   show what a checkpoint holds
  verify    check that checkpoints are whole
  schema    print the JSON Schema of the run file, or its reference

Examples:
  mpirun -n 4 tptrain --config configs/quickstart.yaml
  mpirun -n 4 tptrain --config run.yaml --set train.max_steps=200 --set optimizer.learning_rate=1e-4
  tptrain plan --config run.yaml --tp-size 2
  tptrain generate --checkpoint runs/quickstart --prompt "Once upon a time"
  tptrain verify runs/quickstart

Exit codes:
   0  done
   1  internal error
   2  the command line or the run file is wrong
   3  data cannot be read
   4  no valid checkpoint, or one cannot be written
   5  loss or gradients are not finite
   6  communication failed or hung
  75  stopped on request with the state saved: run the same command again to go on
)";

template <typename T>
struct NumberOf {
  using type = T;
};
template <typename T>
struct NumberOf<std::optional<T>> {
  using type = T;
};

// "" where the whole text is a decimal number of type T, else why not. CLI11 by itself would read
// 010 as 8 and -1 as 2^64 - 1.
template <typename T>
std::string reads_as(const std::string& text) {
  using Number = typename NumberOf<T>::type;
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const size_t digits = text.find_first_not_of("-");
  const bool octal_to_cli11 = std::is_integral_v<Number> && digits != std::string::npos &&
                              text[digits] == '0' && text.size() > digits + 1;
  if (error == std::errc() && end == text.data() + text.size() && !octal_to_cli11) return "";
  const char* wanted = std::is_floating_point_v<Number> ? "a number"
                       : std::is_signed_v<Number>       ? "an integer"
                                                        : "an integer of at least 0";
  return cat("\"", text, "\" is not ", wanted);
}

// The rules of one verb's command line. Options are declared on `app`; parse() reports what CLI11
// would word differently from version to version.
class VerbParser {
 public:
  VerbParser(const std::string& verb, const std::string& description, const std::string& examples)
      : name_(verb.empty() ? "tptrain" : "tptrain " + verb), app_(description, name_) {
    app_.allow_extras();  // to name the nearest option ourselves
    app_.footer("Examples:\n" + examples + "\n");
  }

  CLI::App& app() { return app_; }

  /// Adds an option that takes one value.
  template <typename T>
  void option(const std::string& name, T& value, const std::string& type, const std::string& doc) {
    names_.push_back(name);
    CLI::Option* option = app_.add_option(name, value, doc)->option_text(type);
    if constexpr (!std::is_same_v<T, std::string>) option->check(reads_as<T>);
  }
  /// Adds an option that may be repeated, each time with one value.
  void list(const std::string& name, std::vector<std::string>& values, const std::string& type,
            const std::string& doc) {
    names_.push_back(name);
    app_.add_option(name, values, doc)->option_text(type)->expected(1)->take_all();
  }
  void flag(const std::string& name, bool& value, const std::string& doc) {
    names_.push_back(name);
    app_.add_flag(name, value, doc);
  }
  void positional(const std::string& name, std::string& value, const std::string& doc) {
    app_.add_option(name, value, doc)->option_text(" ");
  }

  /// The help text where --help is asked for; else fills what the options are bound to. Throws
  /// ConfigError.
  std::optional<PrintCommand> parse(std::vector<std::string> arguments) {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    try {
      app_.parse(arguments);
    } catch (const CLI::CallForHelp&) {
      return PrintCommand{app_.help()};
    } catch (const CLI::ParseError& e) {
      throw ConfigError(problem(e.what()).at(name_).remedy(see_help()));
    }
    const std::vector<std::string> extras = app_.remaining();
    if (extras.empty()) return std::nullopt;
    const std::string extra = extras[0].substr(0, extras[0].find('='));
    if (extra[0] != '-') {
      throw ConfigError(problem(cat("\"", extras[0], "\" is one argument too many"))
                            .at(name_)
                            .remedy(see_help()));
    }
    const std::string meant = nearest_word(extra, names_);
    throw ConfigError(problem(cat(extra, " is no known option"))
                          .at(name_)
                          .remedy(meant.empty() ? cat("Its options are ", join(names_), ".")
                                                : cat("Did you mean ", meant, "?")));
  }

  /// What the options broke, one after another; finish() throws where there was any.
  void require(bool holds, const std::string& received, const std::string& constraint) {
    if (!holds)
      problems_.push_back(problem(received).at(name_).must(constraint).remedy(see_help()));
  }
  void finish() const {
    if (!problems_.empty()) throw ConfigError(problems_);
  }

 private:
  std::string see_help() const { return name_ + " --help shows the options."; }

  std::string name_;
  CLI::App app_;
  std::vector<std::string> names_;
  std::vector<Problem> problems_;
};

constexpr const char* kSetDoc =
    "Overrides one value of the run file; may be repeated (docs/configuration.md)";

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

Command parse_generate(const std::vector<std::string>& arguments) {
  VerbParser parser("generate", "Continues a text with a trained model.",
                    "  tptrain generate --checkpoint runs/a --prompt \"Once upon a time\"\n"
                    "  mpirun -n 2 tptrain generate --checkpoint runs/a/checkpoints/step-00000100 "
                    "--prompt \"Once\" --temperature 0.8 --top-p 0.95 --seed 7");
  GenerateCommand command;
  parser.option("--checkpoint", command.checkpoint, "PATH",
                "A checkpoint, or a run directory: its newest valid one");
  parser.option("--prompt", command.prompt, "TEXT", "The text to continue");
  parser.option("--max-new-tokens", command.max_new_tokens, "N", "Most tokens to add (200)");
  parser.option("--temperature", command.temperature, "X",
                "0 (the default): always the likeliest token; else sample at this temperature");
  parser.option("--top-k", command.top_k, "K",
                "Sample from the K likeliest tokens; 0 (the default): all");
  parser.option("--top-p", command.top_p, "P",
                "Sample from the likeliest tokens that together have probability P (1)");
  parser.option("--seed", command.seed, "N", "Seed of the sampling (0)");
  parser.option("--device", command.device, "auto|cpu|cuda", "Where to compute (auto)");
  if (auto help = parser.parse(arguments)) return *help;
  parser.require(!command.checkpoint.empty(), "--checkpoint is missing",
                 "name a checkpoint or a run directory");
  parser.require(!command.prompt.empty(), "--prompt is missing or empty",
                 "be the text to continue");
  parser.require(command.max_new_tokens >= 1, cat("--max-new-tokens is ", command.max_new_tokens),
                 "be at least 1");
  parser.require(std::isfinite(command.temperature) && command.temperature >= 0,
                 cat("--temperature is ", command.temperature), "be a number of at least 0");
  parser.require(command.top_k >= 0, cat("--top-k is ", command.top_k), "be at least 0");
  parser.require(command.top_p > 0 && command.top_p <= 1, cat("--top-p is ", command.top_p),
                 "be greater than 0 and at most 1");
  const std::vector<std::string> devices = {"auto", "cpu", "cuda"};
  parser.require(std::find(devices.begin(), devices.end(), command.device) != devices.end(),
                 cat("--device is ", command.device), cat("be one of ", join(devices)));
  parser.finish();
  return command;
}

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

Command parse_schema(const std::vector<std::string>& arguments) {
  VerbParser parser("schema", "Prints the JSON Schema (draft 2020-12) of the run file.",
                    "  tptrain schema > run.schema.json\n"
                    "  tptrain schema --markdown > docs/configuration.md");
  SchemaCommand command;
  parser.flag("--markdown", command.markdown, "Prints the reference of all keys instead");
  if (auto help = parser.parse(arguments)) return *help;
  return command;
}

struct Verb {
  std::string name;
  std::function<Command(const std::vector<std::string>&)> parse;
};

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> kVerbs = {
      {"train", parse_train},     {"plan", parse_plan},     {"generate", parse_generate},
      {"inspect", parse_inspect}, {"verify", parse_verify}, {"schema", parse_schema},
  };
  return kVerbs;
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

}  // namespace

Command parse_cli(int argc, const char* const* argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (arguments.empty()) {
    throw ConfigError(problem("there is nothing to do")
                          .at("tptrain")
                          .must("be given a run file, --config FILE, or a verb")
                          .remedy("tptrain --help shows the verbs and examples."));
  }
  const std::string& first = arguments[0];
  if (first == "--help" || first == "-h") return PrintCommand{cat(kVersion, kHelp)};
  if (first == "--version") return PrintCommand{kVersion};
  if (first.empty() || first[0] == '-') return parse_train(arguments);
  for (const Verb& verb : verbs()) {
    if (verb.name == first) return verb.parse({arguments.begin() + 1, arguments.end()});
  }
  throw unknown_verb(first);
}

}  // namespace tptrain::apps
